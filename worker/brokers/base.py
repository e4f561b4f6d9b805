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
"""Longer than processing a group takes, including backoff. After a crash, SQS redelivers a task after this time."""


class QueueError(OutageError):
    """A queue is missing or would lose messages."""


class BrokerUnreachable(QueueError):
    """The broker does not answer."""


@dataclass(frozen=True, slots=True)
class EventMessage:
    """A received message. `receipt` is what its queue needs to delete it; `sent_at` is in seconds since 1970."""

    id: str
    body: str | bytes
    receipt: Any
    sent_at: float | None = None

    @property
    def age_s(self) -> float:
        """Seconds since the message was sent; 0 if the time is unknown."""
        return time.time() - self.sent_at if self.sent_at is not None else 0.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a dead-letter queue, with the reason for which it was dead-lettered."""

    queue: str
    reason: str
    body: str

    @property
    def id(self) -> str:
        """A hash of the content, since messages of RabbitMQ have no id. Equal messages have equal ids."""
        return hashlib.sha256("\0".join((self.queue, self.reason, self.body)).encode(errors="replace")).hexdigest()[:12]


class DeadLetterQueue(Protocol):
    """A dead-letter queue, and the queue that its messages came from. Methods raise QueueError if it cannot be read."""

    def messages(self) -> list[DeadLetter]:
        """Return all messages, which stay in the queue."""

    def redrive(self) -> int:
        """Move all messages back to the queue that they came from; return their number.

        A crash between sending and deleting leaves a copy in both queues.
        """

    def delete(self, wanted: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
        """Delete the messages for which `wanted` is true, and yield each once it is deleted."""


class BrokerQueue(Protocol):
    """A queue and its dead-letter queue. Constructing it opens no connection."""

    def create(self) -> list[str]:
        """Create whichever of the two queues is missing; return the names of those created. Raises QueueError."""

    def unchecked_queues(self) -> list[str]:
        """Return the names of the queues whose properties could not be checked, for lack of permission."""
        return []

    def depths(self) -> tuple[int, int]:
        """Return the numbers of messages waiting in the queue and in its dead-letter queue, excluding those in flight.

        Raises if the broker does not answer.
        """

    def dead_letters(self) -> DeadLetterQueue:
        """Return the dead-letter queue, to list, redrive or delete its messages."""


class EventQueue(BrokerQueue, Protocol):
    """The queue that the bucket sends its event messages to. Only the methods of BrokerQueue are thread-safe."""

    def open(self) -> None:
        """Raise QueueError unless messages can be received and would not be lost."""

    def receive(self, wait_s: int) -> list[EventMessage]:
        """Receive messages; wait up to `wait_s` seconds for the first."""

    def delete(self, messages: Sequence[EventMessage]) -> None:
        """Delete processed messages. A message that cannot be deleted is redelivered, which is harmless."""

    def requeue(self, messages: Sequence[EventMessage], after_s: float = 0.0) -> None:
        """Have messages redelivered, if possible not before `after_s` seconds have passed."""

    def dead_letter(self, message: EventMessage, reason: str) -> None:
        """Copy a message to the dead-letter queue, with the reason. The original stays in the queue."""

    def close(self) -> None:
        """Close connections; messages that were not deleted are redelivered."""

    def allow_bucket(self, bucket: str) -> str:
        """Permit S3 to send the events of `bucket`; return the queue's ARN. Raises SettingsError, QueueError."""
        raise SettingsError(
            "--events is for BINWATCH_EVENT_SOURCE=sqs: configure any other object store with its own tools, see"
            " docs/servers.md"
        )


class TaskQueue(BrokerQueue, Protocol):
    """Celery's queue."""

    def celery_options(self) -> dict[str, Any]:
        """Return Celery's settings for this broker."""

    def prepare(self, *, to_consume: bool = False) -> None:
        """Prepare the queue for sending; with `to_consume`, also check it for receiving. Raises QueueError."""

    @property
    def dead_letter_target(self) -> Any:
        """The dead-letter queue, as an argument of `Celery.send_task`."""

    def check_accepts_messages(self, app: Celery) -> None:
        """Raise unless the broker accepts messages. The default never raises: a broker that answers accepts them."""
        return

    def probes(self) -> Mapping[str, Callable[[], object]]:
        """Return health checks of a worker that consumes the queue: name → function that raises on a problem."""
        return {}

    def is_redelivered(self, request: Any) -> bool:
        """Return whether the message of a Celery task (its `request`) was delivered before."""

    def rejection(self, error: Exception) -> Reject:
        """Return the exception to raise in a task to have its message redelivered later. May wait before it returns."""

    def dead_letter(self, app: Celery, message: Any, reason: str) -> None:
        """Copy a kombu message to the dead-letter queue, with the reason. The original stays in the queue."""
