"""Queue depths: the number of messages that wait in each queue, polled on a separate thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum

from worker.brokers.choice import Queues

logger = logging.getLogger(__name__)

INTERVAL_S = 15.0
"""A usual scrape interval of Prometheus."""


class QueueRole(StrEnum):
    """Purpose of a queue: a metric label that does not depend on the queue's name."""

    EVENTS = "events"
    EVENTS_DEAD = "events_dead_letters"
    TASKS = "tasks"
    TASKS_DEAD = "tasks_dead_letters"


def look_at(queues: Queues) -> dict[str, int]:
    """Number of messages that wait in each queue, by its role. Raises if a broker does not answer."""
    found = dict(zip((QueueRole.TASKS, QueueRole.TASKS_DEAD), queues.tasks.depths(), strict=True))
    if queues.events is not None:
        found |= zip((QueueRole.EVENTS, QueueRole.EVENTS_DEAD), queues.events.depths(), strict=True)
    return {role.value: depth for role, depth in found.items()}


class DepthPoller:
    """Polls the depths and passes them to the observers, from start to stop. Errors do not end it."""

    def __init__(
        self,
        depths: Callable[[], Mapping[str, int]],
        *observers: Callable[[Mapping[str, int]], object],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._depths = depths
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
                found: Mapping[str, int] = self._depths()
            except Exception as error:  # a broker is down; no figure is better than an outdated one
                logger.warning("the depth of the queues is unknown: %s", error)
                found = {}
            for observe in self._observers:
                observe(found)
            self._stopping.wait(self._interval_s)
