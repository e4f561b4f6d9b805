"""The event queue on RabbitMQ, with kombu, on a connection of its own and without Celery's parser."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from amqp.exceptions import MessageNacked
from kombu.entity import Queue
from kombu.messaging import Consumer, Producer

from binwatch.errors import SettingsError
from binwatch.settings import Settings, advice
from worker.brokers.base import EventMessage, EventQueue
from worker.brokers.rabbitmq.connections import BrokerBlocked, make_connection
from worker.brokers.rabbitmq.queues import RabbitQueue, check_permissions, dead_letter_queue, event_queue, publish

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 20
_PREFETCHED_GROUPS = 4
"""Maximum number of event messages in flight, in groups of `group_photos` messages."""
_SURPLUS_INTERVAL_S = 0.5
"""Minimum interval between early returns of messages, without which circulating messages would keep a core busy."""


class RabbitEventQueue(RabbitQueue, EventQueue):
    """The queue that the object store sends its event messages to. Reconnects by itself.

    Raises SettingsError if the settings do not name a RabbitMQ.
    """

    def __init__(self, settings: Settings) -> None:
        url = (settings.event_broker_url or settings.broker_url).get_secret_value()
        if not url.startswith(("amqp://", "amqps://", "pyamqp://")):
            raise SettingsError(
                "BINWATCH_EVENT_SOURCE=rabbitmq needs BINWATCH_EVENT_BROKER_URL (or BINWATCH_BROKER_URL) of the form"
                f" amqp://user:password@host:5672//: {advice('broker_url')}"
            )
        dead_letters = settings.event_dead_letter_queue
        super().__init__(url, event_queue(settings.event_queue, dead_letters), dead_letter_queue(dead_letters))
        self._connection = make_connection(url, heartbeat=_HEARTBEAT_S, connect_timeout=settings.s3_timeout_s)
        self._prefetch = _PREFETCHED_GROUPS * settings.group_photos
        self._consumer: Any = None
        self._connection_number = 0
        self._received: deque[EventMessage] = deque()
        self._returning: list[tuple[float, EventMessage]] = []
        """Messages to redeliver, each with its due time by the monotonic clock."""
        self._surplus_return_at = 0.0
        """Time from which messages may be returned early, by the same clock."""
        self._connection_errors = (
            *self._connection.recoverable_connection_errors,
            *self._connection.recoverable_channel_errors,
            BrokerBlocked,
        )

    def open(self) -> None:
        """Declare both queues. Raises QueueError if that fails or a permission is missing."""
        self._declare(self._connection)
        check_permissions(self._connection, self._queue)

    def receive(self, wait_s: int) -> list[EventMessage]:
        try:
            self._consume()
            self._return_due()
            self._drain(wait_s)
        except self._connection_errors:
            self.close()
            raise
        messages = list(self._received)
        self._received.clear()
        return messages

    def delete(self, messages: Sequence[EventMessage]) -> None:
        """Delete processed messages. RabbitMQ redelivers those that were received on an earlier connection."""
        try:
            for message in messages:
                if self._is_current(message):
                    self._consumer.channel.basic_ack(message.receipt[1])
        except self._connection_errors as error:
            # Not raised, or the intake would keep the messages and retry on the broken connection.
            logger.warning("event messages not deleted (%s): they will be redelivered", error)
            self.close()

    def requeue(self, messages: Sequence[EventMessage], after_s: float = 0.0) -> None:
        """Have messages redelivered after `after_s` seconds, by a call of `receive`.

        `close` has them redelivered at once, and `receive` does so earlier if too many wait.
        """
        due = time.monotonic() + after_s
        self._returning += [(due, message) for message in messages if self._is_current(message)]

    def dead_letter(self, message: EventMessage, reason: str) -> None:
        try:
            with self._connection.channel() as channel:
                self._dead_letter_queue(channel).declare()  # may have been deleted since
                self._copy(channel, message, self._dead_letter_queue, reason=reason[:1000])
        except MessageNacked:  # refused; the connection still works, although kombu lists this as a connection error
            raise
        except self._connection_errors:
            # Otherwise kombu would silently reconnect for the next call, and leave the consumer on the dead connection.
            self.close()
            raise

    def close(self) -> None:
        self._consumer = None
        self._received.clear()
        self._returning.clear()
        with contextlib.suppress(Exception):
            self._connection.close()

    def _consume(self) -> None:
        if self._consumer is not None:
            return
        self._connection.ensure_connection(max_retries=1)
        self._declare(self._connection)
        self._connection_number += 1
        channel = self._connection.channel()
        channel.basic_qos(0, self._prefetch, False)
        self._consumer = Consumer(channel, [self._queue], on_message=self._on_message, no_ack=False)
        self._consumer.consume()

    def _is_current(self, message: EventMessage) -> bool:
        """Return whether the message is from the current connection; if not, RabbitMQ redelivers it by itself."""
        return self._consumer is not None and bool(message.receipt[0] == self._connection_number)

    def _on_message(self, message: Any) -> None:
        body, tag = message.body, message.delivery_tag
        raw_body = body if isinstance(body, str) else bytes(body)
        timestamp = message.properties.get("timestamp")  # set by versitygw
        sent_at = timestamp.timestamp() if isinstance(timestamp, datetime) else timestamp
        self._received.append(EventMessage(str(tag), raw_body, (self._connection_number, tag), sent_at))

    def _drain(self, wait_s: int) -> None:
        """Wait for the first message, then receive those that were pushed with it, up to the prefetch limit."""
        self._connection.heartbeat_check()
        timeout = float(wait_s) or 0.001
        with contextlib.suppress(TimeoutError, socket.timeout):
            while len(self._received) < self._prefetch:
                self._connection.drain_events(timeout=timeout)
                timeout = 0.001

    def _return_due(self) -> None:
        """Send due messages to the back of the queue. If they were rejected, RabbitMQ would redeliver them first.

        At most half of the prefetched messages may wait, since otherwise no others might be received. Any surplus
        is sent early.
        """
        self._returning.sort(key=lambda item: item[0])
        now = time.monotonic()
        n_due = sum(due <= now for due, _ in self._returning)
        surplus = len(self._returning) - self._prefetch // 2
        if surplus > n_due and now >= self._surplus_return_at:
            n_due, self._surplus_return_at = surplus, now + _SURPLUS_INTERVAL_S
        while n_due and self._returning:  # the list is cleared if the connection breaks meanwhile
            n_due -= 1
            _, message = self._returning.pop(0)
            with self._connection.channel() as channel:
                self._copy(channel, message, self._queue)
            self.delete([message])

    def _copy(self, channel: Any, message: EventMessage, queue: Queue, **headers: str) -> None:
        timestamp: dict[str, Any] = {} if message.sent_at is None else {"timestamp": int(message.sent_at)}
        publish(Producer(channel), queue, message.body, headers, **timestamp)
