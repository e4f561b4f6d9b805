"""All uses of private names of Celery, kombu and amqp. Review this file when one of them is updated.

The other modules use the public names of the classes and functions here. A test compares TESTED_VERSIONS with the
installed versions.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

from amqp.basic_message import Message
from kombu import transport as transports
from kombu.transport import SQS

from binwatch.errors import describe_error

TESTED_VERSIONS = {"amqp": "5.4.2", "celery": "5.7.0", "kombu": "5.7.0"}

UNREADABLE_HEADER = "binwatch-unreadable-properties"
"""Header with the error if the properties of a message could not be read."""

_LoadProperties = Callable[[Message, int, Any, int], int]


def tolerate_unreadable_properties() -> None:
    """Have this process receive messages whose properties py-amqp cannot read; they get the header UNREADABLE_HEADER.

    py-amqp decodes the properties of a message (headers, content type, …) while it reads the frames of a connection.
    It cannot decode everything that RabbitMQ accepts, such as a content type that is not UTF-8. The connection then
    raises the error without the message: a consumer stops or reconnects, and receives the same message again, forever.
    """
    load_properties: _LoadProperties = Message._load_properties
    if getattr(load_properties, "is_tolerant", False):
        return

    def load_tolerantly(self: Message, class_id: int, buffer: Any, offset: int) -> int:
        try:
            return load_properties(self, class_id, buffer, offset)
        except Exception as error:  # of any kind
            self.properties = {"application_headers": {UNREADABLE_HEADER: describe_error(error)}}
            return len(buffer)

    load_tolerantly.is_tolerant = True  # type: ignore[attr-defined]
    Message._load_properties = load_tolerantly


def replace_transport(scheme: str, path: str) -> None:
    """Have kombu use the transport at `path` (module:class) for URLs with this scheme."""
    transports.TRANSPORT_ALIASES[scheme] = path
    transports._transport_cache.pop(scheme, None)  # kombu caches the class of earlier connections


def recompute_schedule(scheduler: Any) -> None:
    """Have a scheduler of Celery's beat recompute its next entry."""
    scheduler._heap = None


class SqsChannel(SQS.Channel):
    """kombu's SQS channel, with public names for the methods that a subclass calls or overrides."""

    def poll(self, queue: str) -> int:
        """Receive and deliver messages of a queue; return their number."""
        raise NotImplementedError

    def requeue(self, message: Any) -> None:
        """Send an undelivered message back to its queue."""
        super()._restore(message)  # type: ignore[no-untyped-call]

    def queue_url(self, queue: str) -> str:
        """Return the URL of a queue. Creates the queue if it does not exist."""
        return str(self._new_queue(queue))

    def existing_queue_url(self, queue: str) -> str:
        """Return the URL of a queue. Raises if the queue does not exist."""
        return str(self._resolve_queue_url(queue))

    def capacity(self) -> int:
        """Return the number of messages that Celery currently accepts, at most ten."""
        return int(self._get_message_estimate())

    def decode(self, message: dict[str, Any], queue: str) -> Any:
        """Return the payload of an SQS message. Raises if kombu did not write it."""
        return self._message_to_python(message, queue, self.queue_url(queue))

    def deliver(self, payload: Any, queue: str) -> None:
        """Pass a payload to the consumer."""
        self.connection._deliver(payload, queue)

    def _get_bulk(self, queue: str, *_: Any, **__: Any) -> None:
        if not self.poll(queue):
            raise Empty

    def _restore(self, message: Any, *_: Any) -> None:
        self.requeue(message)

    @property
    def _queue_cache(self) -> Any:
        if self.connection is None:  # after a failed connection attempt, kombu may use a closed channel
            raise ConnectionError("the channel to SQS is closed")  # kombu then connects again
        return self.connection._queue_cache
