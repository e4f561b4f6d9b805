"""The choice between SQS and RabbitMQ. No other module makes it."""

from __future__ import annotations

import logging
from typing import NamedTuple

from binwatch.settings import EventSource, Settings
from binwatch.text import pluralize
from worker.brokers.base import DeadLetterQueue, EventQueue, TaskQueue
from worker.brokers.rabbitmq.events import RabbitEventQueue
from worker.brokers.rabbitmq.tasks import RabbitTaskQueue
from worker.brokers.sqs.events import SqsEventQueue
from worker.brokers.sqs.tasks import SqsTaskQueue

logger = logging.getLogger(__name__)


class Queues(NamedTuple):
    """The queues that the settings name. Without an event source, there is no event queue."""

    tasks: TaskQueue
    events: EventQueue | None

    def create(self) -> list[str]:
        """Create the missing queues and dead-letter queues; return the names of the created ones. Raises QueueError.

        The event queue must exist before the first event: versitygw drops the events of a missing queue.
        """
        return [name for queue in filter(None, (self.events, self.tasks)) for name in queue.create()]

    def log_unchecked(self) -> None:
        """Log in one line which queues were not checked, which is not an error. Call it once the queues are open."""
        names = [repr(name) for queue in filter(None, (self.events, self.tasks)) for name in queue.unchecked_queues()]
        if names:
            logger.info(
                "RabbitMQ's user lacks the permission to configure the %s %s: properties not checked (docs/servers.md,"
                " who may do what)",
                pluralize(len(names), "queue"),
                ", ".join(names),
            )

    def dead_letters(self) -> list[DeadLetterQueue]:
        """Return the dead-letter queues of event messages, if there is an event source, and of tasks."""
        return [queue.dead_letters() for queue in (self.events, self.tasks) if queue is not None]


def choose_queues(settings: Settings) -> Queues:
    """Return the queues on the brokers that the settings name. Raises SettingsError if they are inconsistent."""
    on_sqs = settings.broker_url.get_secret_value().startswith("sqs")
    tasks = SqsTaskQueue(settings) if on_sqs else RabbitTaskQueue(settings)
    if settings.event_source is EventSource.NONE:
        return Queues(tasks, None)
    events = SqsEventQueue if settings.event_source is EventSource.SQS else RabbitEventQueue
    return Queues(tasks, events(settings))
