"""The interface to a message broker: queues for event messages and for tasks, each with a dead-letter queue."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from celery import Celery
from celery.exceptions import Reject

from binwatch.errors import OutageError, SettingsError

TASK_VISIBILITY_S = 300
"""Longer than a group takes, including its backoff. After a crash, SQS redelivers a task this much later."""


class QueueError(OutageError):
    """A queue is missing or would lose messages."""


class BrokerUnreachable(QueueError):
    """The broker does not answer now."""


@dataclass(frozen=True, slots=True)
class EventMessage:
    """A received message. Its queue needs `receipt` to delete it. `sent_at`: seconds since 1970."""

    id: str
    body: str | bytes
    receipt: Any
    sent_at: float | None = None

    @property
    def age_s(self) -> float:
        """Seconds since the message was sent; 0 if the queue does not say."""
        return time.time() - self.sent_at if self.sent_at is not None else 0.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a dead-letter queue: its body, and the reason if the message has one."""

    queue: str
    reason: str
    body: str

    @property
    def id(self) -> str:
        """A hash of the content, since RabbitMQ gives messages no id. Equal messages have equal ids."""
        return hashlib.sha256("\0".join((self.queue, self.reason, self.body)).encode(errors="replace")).hexdigest()[:12]


class DeadLetterQueue(Protocol):
    """A dead-letter queue, and the queue that its messages came from. Raises QueueError if it cannot be read."""

    def messages(self) -> list[DeadLetter]:
        """All messages, which stay in the queue."""

    def redrive(self) -> int:
        """Move all messages back to the queue that they came from; returns how many.

        A crash between sending and deleting leaves a copy in both queues.
        """

    def delete(self, wanted: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
        """Delete the messages for which `wanted` is true; yields each once it is deleted."""


class BrokerQueue(Protocol):
    """A queue and its dead-letter queue. Constructing it opens no connection."""

    def create(self) -> list[str]:
        """Create the missing ones of both queues; returns the names of those created. Raises QueueError."""

    def unchecked(self) -> list[str]:
        """Names of the queues whose properties were not checked, since the broker's user may not declare them."""
        return []

    def depths(self) -> tuple[int, int]:
        """Messages that wait in the queue and in its dead-letter queue, without those in flight.

        Raises if the broker does not answer.
        """

    def dead_letters(self) -> DeadLetterQueue:
        """The dead-letter queue, to inspect and to redrive."""


class EventQueue(BrokerQueue, Protocol):
    """The queue that the bucket sends its event messages to. Only the methods of BrokerQueue are thread-safe."""

    def open(self) -> None:
        """Raise QueueError unless messages can be received and would not be lost."""

    def receive(self, wait_s: int) -> list[EventMessage]:
        """Receive messages; waits up to `wait_s` seconds for the first."""

    def delete(self, messages: Sequence[EventMessage]) -> None:
        """Delete processed messages. A message that cannot be deleted is redelivered, which is harmless."""

    def requeue(self, messages: Sequence[EventMessage], after_s: float = 0.0) -> None:
        """Have messages redelivered, after `after_s` seconds at the earliest."""

    def dead_letter(self, message: EventMessage, reason: str) -> None:
        """Copy a message to the dead-letter queue, with the reason. The original stays."""

    def close(self) -> None:
        """Close connections; messages that were not deleted are redelivered."""

    def allow_bucket(self, bucket: str) -> str:
        """Permit S3 to send the events of `bucket`; returns the queue's ARN. Raises SettingsError, QueueError."""
        raise SettingsError(
            "--events is for BINWATCH_EVENT_SOURCE=sqs: configure any other object store with its own tools, see"
            " docs/servers.md"
        )


class TaskQueue(BrokerQueue, Protocol):
    """Celery's queue."""

    def celery_options(self) -> dict[str, Any]:
        """Celery's settings for this broker."""

    def prepare(self, *, to_consume: bool = False) -> None:
        """Prepare the queue for sending; with `to_consume`, also check it for receiving. Raises QueueError."""

    @property
    def dead_letter_target(self) -> Any:
        """The dead-letter queue as `Celery.send_task` takes it."""

    def check_accepts_messages(self, app: Celery) -> None:
        """Raise unless the broker accepts messages now. By default, a broker that answers does."""
        return

    def probes(self) -> Mapping[str, Callable[[], object]]:
        """Health checks of a worker that consumes the queue: name → function that raises if something is wrong."""
        return {}

    def is_redelivered(self, request: Any) -> bool:
        """Whether the message of a Celery task (its `request`) was delivered before."""

    def rejection(self, error: Exception) -> Reject:
        """The exception by which a task has its message redelivered later. May wait before it returns."""

    def dead_letter(self, app: Celery, message: Any, reason: str) -> None:
        """Copy a kombu message to the dead-letter queue, with the reason. The original stays."""
