"""How many messages wait in which queue: looked at now and then, on a thread beside the work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from binwatch.settings import EventSource, Settings
from worker.intake.rabbitmq import rabbitmq_url
from worker.queues import queue_url, sqs_client
from worker.rabbitmq import connect_to

logger = logging.getLogger(__name__)

INTERVAL_S = 15.0
"""As often as Prometheus scrapes, by its own default."""
_CONNECT_S = 5.0


class QueueRole(StrEnum):
    """What a queue is there for: a label that says more than its name, and never takes another value."""

    EVENTS = "events"
    EVENTS_DEAD = "events_dead_letters"
    TASKS = "tasks"
    TASKS_DEAD = "tasks_dead_letters"


Depths = Callable[[], Mapping[str, int]]
"""Messages that wait in each queue, those in a worker's hand not included. Raises if a broker does not answer."""


def open_depths(settings: Settings) -> Depths:
    """Looks at the queues that the settings name."""
    events = {
        QueueRole.EVENTS: settings.event_queue,
        QueueRole.EVENTS_DEAD: settings.event_dead_letter_queue,
    }
    tasks = {QueueRole.TASKS: settings.task_queue, QueueRole.TASKS_DEAD: settings.task_queue + "-dead"}
    broker = settings.broker_url.get_secret_value()
    looks = [_on_sqs(settings, tasks) if broker.startswith("sqs") else _on_rabbitmq(broker, tasks)]
    if settings.event_source is EventSource.SQS:
        looks.append(_on_sqs(settings, events))
    elif settings.event_source is EventSource.RABBITMQ:
        looks.append(_on_rabbitmq(rabbitmq_url(settings), events))
    return lambda: {role: depth for look in looks for role, depth in look().items()}


def _on_sqs(settings: Settings, names: Mapping[QueueRole, str]) -> Depths:
    client = sqs_client(settings)

    def look() -> dict[str, int]:
        return {role.value: depth(name) for role, name in names.items()}

    def depth(name: str) -> int:
        wanted = "ApproximateNumberOfMessages"
        found: dict[str, Any] = client.get_queue_attributes(QueueUrl=queue_url(client, name), AttributeNames=[wanted])
        return int(found["Attributes"][wanted])

    return look


def _on_rabbitmq(url: str, names: Mapping[QueueRole, str]) -> Depths:
    def look() -> dict[str, int]:
        # A connection for each look: one that is kept would need heartbeats, and could be dead without a sign.
        # Not its default_channel, which tries for longer.
        with connect_to(url, connect_timeout=_CONNECT_S) as connection, connection.channel() as channel:
            return {
                role.value: int(channel.queue_declare(name, passive=True).message_count) for role, name in names.items()
            }

    return look


class DepthWatch:
    """Tells those who want to know how many messages wait, from start to stop. No error ends it."""

    def __init__(
        self, depths: Depths, *tell: Callable[[Mapping[str, int]], object], interval_s: float = INTERVAL_S
    ) -> None:
        self._depths = depths
        self._tell = tell
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="depths", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. A look that hangs is not waited for."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            found = self._look()
            for tell in self._tell:
                tell(found)
            self._stopping.wait(self._interval_s)

    def _look(self) -> Mapping[str, int]:
        try:
            return self._depths()
        except Exception as error:  # a broker is down; no figure is better than an old one
            logger.warning("the depth of the queues is not known: %s", error)
            return {}
