"""Event messages from RabbitMQ, by kombu, on a connection of its own. Never through Celery's parser."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from amqp.exceptions import AccessRefused, MessageNacked, NotAllowed, NotFound, PreconditionFailed
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.messaging import Consumer, Producer

from binwatch.errors import SettingsError
from binwatch.settings import Settings
from worker.amqp_properties import tolerate_unreadable
from worker.intake.received import Received
from worker.queues import QueueError
from worker.rabbitmq import BrokerBlocked, check_takes_messages, connect_to

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 20
_NO_LIMIT = 1_000_000  # from RabbitMQ 4 on, a quorum queue without a limit drops a message after 20 deliveries
_MAX_DELIVERIES = 1000
"""Every worker that stops is a delivery of all that RabbitMQ had pushed to it in advance, so twenty are soon over."""
_SURPLUS_WAIT_S = 0.5
"""Between two returns of messages before their time: refused messages that only go round must not take up a core."""
_CHECK = "binwatch-check"
"""Tag of a consumer that only finds out whether it may be one."""
_NO_NAME = Exchange("")  # RabbitMQ's default exchange: the routing key is the queue's name


def rabbitmq_url(settings: Settings) -> str:
    """URL of the broker with the event queue. Raises SettingsError if it is not RabbitMQ's."""
    url = (settings.event_broker_url or settings.broker_url).get_secret_value()
    if not url.startswith(("amqp://", "amqps://", "pyamqp://")):
        raise SettingsError(
            "BINWATCH_EVENT_SOURCE=rabbitmq needs BINWATCH_EVENT_BROKER_URL (or BINWATCH_BROKER_URL) of the form"
            " amqp://user:password@host:5672//"
        )
    return url


def event_queue(name: str, dead_letter: str) -> Queue:
    """The queue for event messages. A quorum queue keeps messages on disk even if, as versitygw does, the sender marks
    them as transient, so a restart of the broker loses none."""
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": _MAX_DELIVERIES,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_letter,
    }
    return Queue(name, _NO_NAME, routing_key=name, durable=True, queue_arguments=arguments)


def dead_letter_queue(name: str) -> Queue:
    """A queue where messages stay until a person puts them back, however often someone looks at them."""
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": _NO_LIMIT}
    return Queue(name, _NO_NAME, routing_key=name, durable=True, queue_arguments=arguments)


def task_queue(name: str) -> Queue:
    """Celery's queue. A classic one: Celery holds tasks back until their next try, which quorum queues do not like."""
    arguments = {
        "x-queue-type": "classic",  # a virtual host may make them quorum queues unless it is told
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": name + "-dead",
    }
    return Queue(name, _NO_NAME, routing_key=name, durable=True, queue_arguments=arguments)


class BrokerUnreachable(QueueError):
    """RabbitMQ does not answer now."""


def declare(connection: Connection, queues: Sequence[Queue]) -> None:
    """Declare the queues. Raises QueueError if one is there already with other properties, or cannot be had.

    A user who may not declare them must find them there; then nothing declares them again, Celery neither.
    """
    _connect(connection)
    for queue in queues:
        try:
            with connection.channel() as channel:  # RabbitMQ closes the channel on a mismatch
                queue(channel).declare()
        except AccessRefused as error:
            _take_as_it_is(connection, queue, error)
        except PreconditionFailed as error:
            raise QueueError(
                f"queue {queue.name!r} exists with other properties ({error}): once it is empty, delete it, and start"
                " again"
            ) from error
        except connection.channel_errors as error:
            raise QueueError(f"queue {queue.name!r} cannot be had ({error}); see RabbitMQ's log") from error
        except connection.connection_errors as error:
            raise _unreachable(error) from error


def _take_as_it_is(connection: Connection, queue: Queue, refusal: AccessRefused) -> None:
    """A queue that the user may not declare: it is used if it is there."""
    try:
        with connection.channel() as channel:
            channel.queue_declare(queue.name, passive=True)
    except NotFound as error:
        raise QueueError(
            f"queue {queue.name!r} does not exist, and RabbitMQ's user may not make it ({refusal}): give the user the"
            " permission to configure it, or have python -m worker setup make it as a user who has that"
        ) from error
    if not queue.no_declare:  # type: ignore[attr-defined]  # kombu sets it
        logger.warning("queue %r is used as it is, unchecked: RabbitMQ's user may not declare it", queue.name)
    queue.no_declare = True  # type: ignore[attr-defined]


def check_permissions(connection: Connection, queue: Queue) -> None:
    """Raise QueueError if RabbitMQ's user may not read from the queue, or not write to any. Loses no message."""
    try:
        with connection.channel() as channel:
            channel.basic_qos(0, 1, False)
            channel.basic_consume(queue.name, _CHECK, callback=lambda _: None)
            channel.basic_cancel(_CHECK)  # what came meanwhile goes back as the channel is closed
        with contextlib.suppress(BrokerBlocked):  # may pass, and what waits can be counted meanwhile
            check_takes_messages(connection)
    except AccessRefused as error:
        raise QueueError(
            f"queue {queue.name!r} cannot be used ({error}): give RabbitMQ's user the permissions to read from it and"
            " to write to the exchange amq.default"
        ) from error


def _connect(connection: Connection) -> None:
    try:
        connection.connect()
    except AccessRefused as error:
        raise QueueError(
            "RabbitMQ refuses the user or the password of BINWATCH_BROKER_URL (or BINWATCH_EVENT_BROKER_URL): correct"
            " them, and mind that RabbitMQ keeps those that it was first started with"
        ) from error
    except NotAllowed as error:
        raise QueueError(
            f"RabbitMQ refuses the virtual host ({error}): correct what follows the host in BINWATCH_BROKER_URL (or"
            " BINWATCH_EVENT_BROKER_URL), or give the user permissions there"
        ) from error
    except connection.connection_errors as error:
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> BrokerUnreachable:
    return BrokerUnreachable(f"RabbitMQ cannot be reached ({error}); check BINWATCH_BROKER_URL")


class RabbitEvents:
    """The queue of event messages and its dead-letter queue. For one thread; reconnects by itself."""

    def __init__(self, url: str, queue: str, dead_letter: str, *, prefetch: int, timeout_s: float) -> None:
        tolerate_unreadable()
        self._connection = connect_to(url, heartbeat=_HEARTBEAT_S, connect_timeout=timeout_s)
        self._queue = event_queue(queue, dead_letter)
        self._dead_letter = dead_letter_queue(dead_letter)
        self._prefetch = prefetch
        self._consumer: Any = None
        self._generation = 0
        self._received: deque[Received] = deque()
        self._returning: list[tuple[float, Received]] = []
        """Which message is to come again when, by the monotonic clock."""
        self._surplus_at = 0.0
        """When messages may be returned before their time, by the same clock."""
        self._broken = (
            *self._connection.recoverable_connection_errors,
            *self._connection.recoverable_channel_errors,
            BrokerBlocked,
        )

    def declare(self) -> None:
        """Make both queues. Raises QueueError."""
        declare(self._connection, [self._dead_letter, self._queue])

    def check_permissions(self) -> None:
        """Raise QueueError if a permission is lacking."""
        check_permissions(self._connection, self._queue)

    def receive(self, wait_s: int) -> list[Received]:
        """What has come; waits up to `wait_s` seconds for the first."""
        try:
            self._consume()
            self._return_due()
            self._drain(wait_s)
        except self._broken:
            self._forget()
            raise
        messages = list(self._received)
        self._received.clear()
        return messages

    def delete(self, messages: Sequence[Received]) -> None:
        """Take handled messages off the queue. What came over a connection that broke since then comes again anyway."""
        try:
            for message in messages:
                if self._is_ours(message):
                    self._consumer.channel.basic_ack(message.receipt[1])
        except self._broken as error:
            # Not raised: what is to be deleted would stay in the loop's hand, and it would try on this connection only.
            logger.warning("event messages not deleted (%s): they will come again", error)
            self._forget()

    def give_back(self, messages: Sequence[Received], after_s: float = 0.0) -> None:
        """Have messages come again, after so many seconds at the earliest; only `receive` and `close` see to it."""
        due = time.monotonic() + after_s
        self._returning += [(due, message) for message in messages if self._is_ours(message)]

    def set_aside(self, message: Received, reason: str) -> None:
        """Copy a message that cannot be handled to the dead-letter queue, with the reason. The original stays."""
        try:
            with self._connection.channel() as channel:
                self._dead_letter(channel).declare()  # someone may have deleted it since
                _copy(channel, message, self._dead_letter.name, reason=reason[:1000])
        except MessageNacked:  # refused, on a sound connection, though kombu counts it among those that break one
            raise
        except self._broken:
            # Or kombu would quietly connect anew for the next call, and the consumer stay on the dead connection.
            self._forget()
            raise

    def close(self) -> None:
        """Let go of the connection; messages that were not deleted come again, at once."""
        self._forget()

    def _consume(self) -> None:
        if self._consumer is not None:
            return
        self._connection.ensure_connection(max_retries=1)
        self.declare()
        self._generation += 1
        channel = self._connection.channel()
        channel.basic_qos(0, self._prefetch, False)
        self._consumer = Consumer(channel, [self._queue], on_message=self._on_message, no_ack=False)
        self._consumer.consume()

    def _is_ours(self, message: Received) -> bool:
        """Whether it came over the connection that is in use now: if not, it comes again by itself."""
        return self._consumer is not None and bool(message.receipt[0] == self._generation)

    def _on_message(self, message: Any) -> None:
        body, tag = message.body, message.delivery_tag
        raw = body if isinstance(body, str) else bytes(body)
        sent = message.properties.get("timestamp")  # versitygw's messages have one
        sent_at = sent.timestamp() if isinstance(sent, datetime) else sent
        self._received.append(Received(str(tag), raw, (self._generation, tag), sent_at))

    def _drain(self, wait_s: int) -> None:
        """Wait for the first message, then take what has come with it, up to the prefetch limit."""
        self._connection.heartbeat_check()
        timeout = float(wait_s) or 0.001
        with contextlib.suppress(TimeoutError, socket.timeout):
            while len(self._received) < self._prefetch:
                self._connection.drain_events(timeout=timeout)
                timeout = 0.001

    def _return_due(self) -> None:
        """Send what is due to the back of its queue: rejected, it would be the first to come again, before any photo.

        No more than half of what RabbitMQ pushes ahead may wait for its time for long, or nothing else would come.
        """
        self._returning.sort(key=lambda one: one[0])
        now = time.monotonic()
        number = sum(due <= now for due, _ in self._returning)
        surplus = len(self._returning) - self._prefetch // 2
        if surplus > number and now >= self._surplus_at:
            number, self._surplus_at = surplus, now + _SURPLUS_WAIT_S
        while number and self._returning:  # none is left if the connection breaks meanwhile
            number -= 1
            _, message = self._returning.pop(0)
            with self._connection.channel() as channel:
                _copy(channel, message, self._queue.name)
            self.delete([message])

    def _forget(self) -> None:
        self._consumer = None
        self._received.clear()
        self._returning.clear()
        with contextlib.suppress(Exception):
            self._connection.close()


def _copy(channel: Any, message: Received, queue: str, **headers: str) -> None:
    body = message.body
    Producer(channel).publish(
        body.encode(errors="surrogateescape") if isinstance(body, str) else body,
        routing_key=queue,
        headers=headers,
        content_type="application/octet-stream",
        content_encoding="binary",
        mandatory=True,
        delivery_mode="persistent",
        **({} if message.sent_at is None else {"timestamp": int(message.sent_at)}),
    )
