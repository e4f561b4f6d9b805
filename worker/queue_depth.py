"""Queue depths: the number of messages that wait in each queue, polled on a separate thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum

from worker.brokers.choice import Queues

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 15.0
"""A common scrape interval of Prometheus."""


class QueueRole(StrEnum):
    """Purpose of a queue. A metric label, independent of the queue's name."""

    EVENTS = "events"
    EVENTS_DEAD = "events_dead_letters"
    TASKS = "tasks"
    TASKS_DEAD = "tasks_dead_letters"


def queue_depths(queues: Queues) -> dict[str, int]:
    """Return the number of waiting messages by role of the queue. Raises if a broker does not answer."""
    depths = dict(zip((QueueRole.TASKS, QueueRole.TASKS_DEAD), queues.tasks.depths(), strict=True))
    if queues.events is not None:
        depths |= zip((QueueRole.EVENTS, QueueRole.EVENTS_DEAD), queues.events.depths(), strict=True)
    return {role.value: depth for role, depth in depths.items()}


class DepthPoller:
    """Polls the depths and passes them to the observers, from start to stop. Continues after errors."""

    def __init__(
        self,
        get_depths: Callable[[], Mapping[str, int]],
        *observers: Callable[[Mapping[str, int]], object],
        interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        self._get_depths = get_depths
        self._observers = observers
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="depths", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, without waiting for a poll in progress."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                depths: Mapping[str, int] = self._get_depths()
            except Exception as error:  # a broker is down: report nothing rather than stale depths
                logger.warning("the depth of the queues is unknown: %s", error)
                depths = {}
            for observe in self._observers:
                observe(depths)
            self._stopping.wait(self._interval_s)
