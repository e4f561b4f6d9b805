"""Connections to RabbitMQ on which publishing has a time limit.

A broker that is low on disk or memory stops reading from publishing connections, and sends "connection.blocked". kombu
and Celery ignore that, and wait for a confirmation without a time limit. Closing such a connection also waits. With
these connections, a blocked publish fails at once, and an unconfirmed one after PUBLISH_TIMEOUT_S. The connection is
then dropped, so that the next attempt uses a new one.
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

PUBLISH_TIMEOUT_S = 20.0
"""Maximum wait for the confirmation of a message. A quorum queue needs far less time to write it to disk."""
PROBE_ROUTING_KEY = "binwatch-probe"
"""Routing key without a queue: RabbitMQ confirms such messages, and drops them."""


class BrokerBlocked(OutageError):
    """The broker currently accepts no messages. Not a connection error, after which Celery would retry at once."""


def make_connection(url: str, **options: Any) -> Connection:
    """Create a connection with time limits on publishing; it is not connected yet."""
    use_guarded_transports()
    return Connection(url, **options)


def use_guarded_transports() -> None:
    """Have kombu, and so Celery, use these connections for every RabbitMQ URL, including failover URLs."""
    classes = {"amqp": GuardedTransport, "pyamqp": GuardedTransport, "amqps": GuardedTlsTransport}
    for scheme, transport in classes.items():
        replace_transport(scheme, f"{__name__}:{transport.__name__}")


def check_accepts_messages(connection: Connection) -> None:
    """Raise unless the broker accepts a message on a fresh `connection`: BrokerBlocked, or the connection's error."""
    with connection.channel() as channel:
        channel.probe()


class _Channel(pyamqp.Channel):
    """A channel on which RabbitMQ confirms every message: an event message is deleted only once its task is stored."""

    def probe(self) -> None:
        """Send a message that RabbitMQ drops. Raises BrokerBlocked if RabbitMQ does not accept it."""
        self._publish(Message(b"", delivery_mode=1), routing_key=PROBE_ROUTING_KEY)

    def basic_publish_confirm(self, *args: Any, **options: Any) -> Any:
        connection = self.connection
        if connection is not None and not connection.has_published:
            # A blocked broker would deliver the message later, once per attempt. So a probe is sent first.
            self.probe()
            connection.has_published = True
        return self._publish(*args, **options)

    basic_publish = basic_publish_confirm

    def _publish(self, *args: Any, **options: Any) -> Any:
        connection = self.connection
        if connection is None:
            raise RecoverableConnectionError("connection already closed")
        try:
            with connection.deadline(PUBLISH_TIMEOUT_S):
                return super().basic_publish_confirm(*args, **options)
        except TimeoutError as error:
            # Dropped: a late confirmation could be mistaken for the next message's, and a regular close would wait.
            connection.collect()
            raise BrokerBlocked(
                f"RabbitMQ did not confirm a message within {PUBLISH_TIMEOUT_S:g} s; see its log and its disk"
            ) from error
        except BrokerBlocked:
            connection.collect()
            raise


class _Connection(pyamqp.Connection):
    Channel = _Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        self.has_published = False
        self._deadline = float("inf")
        super().__init__(*args, **options, on_blocked=_raise_blocked)

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """In the `with` block, reading raises TimeoutError after `seconds`, even if heartbeats arrive."""
        self._deadline = time.monotonic() + seconds
        try:
            yield
        finally:
            self._deadline = float("inf")

    def blocking_read(self, timeout: float | None = None) -> Any:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the deadline has passed")
        if timeout is None or timeout > remaining:
            timeout = None if remaining == float("inf") else remaining
        return super().blocking_read(timeout)


def _raise_blocked(_: str) -> None:
    raise BrokerBlocked(
        "RabbitMQ accepts no messages, because its disk or memory is nearly full (an alarm); make room:"
        " rabbitmq-diagnostics alarms says which it is"
    )


class GuardedTransport(pyamqp.Transport):
    """kombu's transport for amqp://, with these connections."""

    Connection = _Connection


class GuardedTlsTransport(pyamqp.SSLTransport):
    """kombu's transport for amqps://, with these connections."""

    Connection = _Connection
