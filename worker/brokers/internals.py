"""All uses of private names of Celery, kombu and amqp: what to look at when one of them is updated.

The other modules use the public names of the classes and functions here. A test compares TRIED_WITH with the versions
that are installed.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

from amqp.basic_message import Message
from kombu import transport as transports
from kombu.transport import SQS

from binwatch.errors import described

TRIED_WITH = {"amqp": "5.4.2", "celery": "5.7.0", "kombu": "5.7.0"}

UNREADABLE = "binwatch-unreadable-properties"
"""Header of a message whose own properties could not be read: the error."""

_Load = Callable[[Message, int, Any, int], int]


def tolerate_unreadable() -> None:
    """Have every message from RabbitMQ received in this process, whatever its properties; those that cannot be read
    are replaced by the header UNREADABLE.

    py-amqp decodes the properties of a message (headers, content type, …) while it reads the frames of a connection.
    Some that RabbitMQ accepts it cannot decode, such as a content type that is not UTF-8. The error is then raised by
    the connection, without the message: a consumer ends or reconnects, receives the same message, and so on for ever.
    """
    load: _Load = Message._load_properties
    if getattr(load, "tolerant", False):
        return

    def tolerant(self: Message, class_id: int, buffer: Any, offset: int) -> int:
        try:
            return load(self, class_id, buffer, offset)
        except Exception as error:  # whatever is in there
            self.properties = {"application_headers": {UNREADABLE: described(error)}}
            return len(buffer)

    tolerant.tolerant = True  # type: ignore[attr-defined]
    Message._load_properties = tolerant


def replace_transport(scheme: str, path: str) -> None:
    """Have kombu use the transport at `path` (module:class) for URLs of a scheme."""
    transports.TRANSPORT_ALIASES[scheme] = path
    transports._transport_cache.pop(scheme, None)  # of connections that were made before


def recompute_schedule(scheduler: Any) -> None:
    """Have a scheduler of Celery's beat compute anew which entry is next."""
    scheduler._heap = None


class SqsChannel(SQS.Channel):
    """kombu's channel of SQS, with public names for what a subclass calls or replaces."""

    def poll(self, queue: str) -> int:
        """Receive and deliver messages of a queue; returns how many."""
        raise NotImplementedError

    def requeue(self, message: Any) -> None:
        """Send an undelivered message to its queue again."""
        super()._restore(message)  # type: ignore[no-untyped-call]

    def queue_url(self, queue: str) -> str:
        """URL of a queue, which is created if it does not exist."""
        return str(self._new_queue(queue))

    def existing_queue_url(self, queue: str) -> str:
        """URL of a queue. Raises if it does not exist."""
        return str(self._resolve_queue_url(queue))

    def capacity(self) -> int:
        """How many messages Celery takes now, at most ten."""
        return int(self._get_message_estimate())

    def decode(self, message: dict[str, Any], queue: str) -> Any:
        """The payload of a message of SQS. Raises if it is not one of kombu's."""
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
        if self.connection is None:  # after a failure to connect, kombu may try a channel that it has closed
            raise ConnectionError("the channel to SQS is closed")  # kombu then connects anew
        return self.connection._queue_cache
