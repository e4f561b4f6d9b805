"""Connections to RabbitMQ on which nothing waits for ever for the broker to take a message.

A broker that is low on disk or memory reads no more from a connection that publishes, and says "connection.blocked".
kombu and Celery pass over that and wait for a confirmation without a time limit, and closing such a connection waits,
too. Here, such a publish fails at once, one that is not confirmed fails after a while, and the connection is dropped,
so that the next try is made on a new one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from amqp.basic_message import Message
from amqp.exceptions import RecoverableConnectionError
from kombu.connection import Connection
from kombu.transport import pyamqp

from binwatch.errors import OutageError
from worker.brokers.internals import replace_transport

PUBLISH_WITHIN_S = 20.0
"""Longest wait for a message to be taken. Far longer than a quorum queue needs to have it on its disks."""
PROBE = "binwatch-probe"
"""Routing key that no queue has: RabbitMQ confirms such a message, and drops it."""


class BrokerBlocked(OutageError):
    """The broker takes no message now. Not an error of the connection, after which Celery would try again at once."""


def connect_to(url: str, **options: Any) -> Connection:
    """A connection as this file says; nothing is connected yet."""
    use_guarded_transports()
    return Connection(url, **options)


def use_guarded_transports() -> None:
    """Have kombu, and so Celery, make such connections for each URL of RabbitMQ, those of a failover included."""
    classes = {"amqp": GuardedTransport, "pyamqp": GuardedTransport, "amqps": GuardedTlsTransport}
    for scheme, transport in classes.items():
        replace_transport(scheme, f"{__name__}:{transport.__name__}")


def check_takes_messages(connection: Connection) -> None:
    """Raise unless the broker takes a message from a fresh `connection` now: BrokerBlocked, or what else it says."""
    with connection.channel() as channel:
        channel.probe()


class _Channel(pyamqp.Channel):
    """Every message is confirmed: without, an event message could be deleted before its task is safe."""

    def probe(self) -> None:
        """Send a message that RabbitMQ drops. Raises BrokerBlocked."""
        self._publish(Message(b"", delivery_mode=1), routing_key=PROBE)

    def basic_publish_confirm(self, *args: Any, **options: Any) -> Any:
        connection = self.connection
        if connection is not None and not connection.has_published:
            # Sent to a broker that is blocked, a message is taken once it is so no more: as often as it was tried.
            self.probe()
            connection.has_published = True
        return self._publish(*args, **options)

    basic_publish = basic_publish_confirm

    def _publish(self, *args: Any, **options: Any) -> Any:
        connection = self.connection
        if connection is None:
            raise RecoverableConnectionError("connection already closed")
        try:
            with connection.deadline(PUBLISH_WITHIN_S):
                return super().basic_publish_confirm(*args, **options)
        except TimeoutError as error:
            # A late confirmation must not pass for that of the next message; and closing in good order would wait.
            connection.collect()
            raise BrokerBlocked(
                f"RabbitMQ did not confirm a message within {PUBLISH_WITHIN_S:g} s; see its log and its disk"
            ) from error
        except BrokerBlocked:
            connection.collect()
            raise


class _Connection(pyamqp.Connection):
    Channel = _Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        self.has_published = False
        self._until = float("inf")
        super().__init__(*args, **options, on_blocked=_raise_blocked)

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Within it, reading raises TimeoutError after so many seconds, whatever else is read: heartbeats, too."""
        self._until = time.monotonic() + seconds
        try:
            yield
        finally:
            self._until = float("inf")

    def blocking_read(self, timeout: float | None = None) -> Any:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        if timeout is None or timeout > left:
            timeout = None if left == float("inf") else left
        return super().blocking_read(timeout)


def _raise_blocked(_: str) -> None:
    raise BrokerBlocked(
        "RabbitMQ accepts no messages, because its disk or memory is nearly full (an alarm); make room:"
        " rabbitmq-diagnostics alarms says which it is"
    )


class GuardedTransport(pyamqp.Transport):
    """kombu's transport for amqp:// with these connections."""

    Connection = _Connection


class GuardedTlsTransport(pyamqp.SSLTransport):
    """The same for amqps://."""

    Connection = _Connection
