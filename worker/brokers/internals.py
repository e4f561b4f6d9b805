"""All uses of private names of Celery, kombu and amqp. Check this file when one of them is updated.

The other modules use the public names of the classes and functions here. A test compares TESTED_VERSIONS with the installed
versions.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

from amqp.basic_message import Message
from kombu import transport as transports
from kombu.transport import SQS

from binwatch.errors import described

TESTED_VERSIONS = {"amqp": "5.4.2", "celery": "5.7.0", "kombu": "5.7.0"}

UNREADABLE_HEADER = "binwatch-unreadable-properties"
"""Header that holds the error if the properties of a message could not be read."""

_Load = Callable[[Message, int, Any, int], int]


def tolerate_unreadable_properties() -> None:
    """Have this process receive messages from RabbitMQ whose properties cannot be read, with the header UNREADABLE_HEADER
    in their place.

    py-amqp decodes the properties of a message (headers, content type, …) while it reads the frames of a connection.
    It cannot decode all that RabbitMQ accepts, such as a content type that is not UTF-8. The connection then raises the
    error without the message: a consumer ends or reconnects, and receives the same message again, for ever.
    """
    load: _Load = Message._load_properties
    if getattr(load, "tolerant", False):
        return

    def tolerant(self: Message, class_id: int, buffer: Any, offset: int) -> int:
        try:
            return load(self, class_id, buffer, offset)
        except Exception as error:  # of any kind
            self.properties = {"application_headers": {UNREADABLE_HEADER: described(error)}}
            return len(buffer)

    tolerant.tolerant = True  # type: ignore[attr-defined]
    Message._load_properties = tolerant


def replace_transport(scheme: str, path: str) -> None:
    """Have kombu use the transport at `path` (module:class) for URLs of a scheme."""
    transports.TRANSPORT_ALIASES[scheme] = path
    transports._transport_cache.pop(scheme, None)  # kombu remembers the class of earlier connections


def recompute_schedule(scheduler: Any) -> None:
    """Have a scheduler of Celery's beat compute its next entry again."""
    scheduler._heap = None


class SqsChannel(SQS.Channel):
    """kombu's SQS channel, with public names for the methods that a subclass calls or replaces."""

    def poll(self, queue: str) -> int:
        """Receive and deliver messages of a queue; returns their number."""
        raise NotImplementedError

    def requeue(self, message: Any) -> None:
        """Send an undelivered message to its queue again."""
        super()._restore(message)  # type: ignore[no-untyped-call]

    def queue_url(self, queue: str) -> str:
        """URL of a queue. Creates the queue if it does not exist."""
        return str(self._new_queue(queue))

    def existing_queue_url(self, queue: str) -> str:
        """URL of a queue. Raises if it does not exist."""
        return str(self._resolve_queue_url(queue))

    def capacity(self) -> int:
        """Number of messages that Celery accepts now, at most ten."""
        return int(self._get_message_estimate())

    def decode(self, message: dict[str, Any], queue: str) -> Any:
        """The payload of an SQS message. Raises if kombu did not write it."""
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
        if self.connection is None:  # after a failed connection attempt, kombu may use a channel that it has closed
            raise ConnectionError("the channel to SQS is closed")  # kombu then connects again
        return self.connection._queue_cache
