"""A dead-letter queue of RabbitMQ."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from amqp.exceptions import AMQPError, MessageNacked
from kombu.connection import Connection

from binwatch.errors import describe_error
from binwatch.text import count_noun
from worker.brokers.base import DeadLetter, DeadLetterQueue, QueueError
from worker.brokers.rabbitmq.connections import BrokerBlocked, make_connection

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 30.0
"""How long to retry until the queue can be read, in seconds."""
_RETRY_INTERVAL_S = 0.5
_DEATH_REASONS = {"delivery_limit": "delivered too often", "rejected": "rejected by the worker"}
_CONNECTION_ERRORS = (AMQPError, MessageNacked, OSError, BrokerBlocked)


class RabbitDeadLetters(DeadLetterQueue):
    """A dead-letter queue of RabbitMQ, and the queue that its messages came from; `declare` declares both."""

    def __init__(self, url: str, name: str, source: str, declare: Callable[[Connection], object]) -> None:
        self._url = url
        self._name = name
        self._source = source
        self._declare = declare

    def messages(self) -> list[DeadLetter]:
        with self._receive_all() as (_, messages):
            return [self._to_dead_letter(message) for message in messages]

    def redrive(self) -> int:
        with self._receive_all() as (channel, messages):
            for message in messages:
                channel.basic_publish_confirm(message, exchange="", routing_key=self._source, mandatory=True)
                channel.basic_ack(message.delivery_tag)
        return len(messages)

    def delete(self, wanted: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
        with self._receive_all() as (channel, messages):
            for message in messages:
                letter = self._to_dead_letter(message)
                if wanted(letter):
                    channel.basic_ack(message.delivery_tag)
                    yield letter

    @contextmanager
    def _receive_all(self) -> Iterator[tuple[Any, list[Any]]]:
        """Receive all messages; yield their channel and the messages. Those not acknowledged in the block are kept."""
        connection, channel, messages = self._receive_patiently()
        try:
            yield channel, messages
        except _CONNECTION_ERRORS as error:
            raise QueueError(
                f"RabbitMQ failed ({describe_error(error)}) before all {count_noun(len(messages), 'message')} of"
                f" {self._name!r} were processed; repeat the command for the rest"
            ) from error
        finally:
            with suppress(*_CONNECTION_ERRORS):  # closing the connection would also requeue them, but only later
                channel.basic_recover(requeue=True)
            _release(connection)

    def _receive_patiently(self) -> tuple[Connection, Any, list[Any]]:
        """Receive all messages.

        Retries, since a broker that has just started may answer before its quorum queues have elected leaders.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            connection, messages = make_connection(self._url), []
            try:
                self._declare(connection)
                channel = connection.channel()
                while (message := channel.basic_get(self._name)) is not None:
                    messages.append(message)
            except _CONNECTION_ERRORS as error:
                _release(connection)
                if time.monotonic() > deadline:
                    raise QueueError(
                        f"RabbitMQ answers, but its queue {self._name!r} did not within {READY_TIMEOUT_S:.0f} s"
                        f" ({describe_error(error)}); if the broker has just started, try again, else see its log"
                    ) from error
                logger.warning("queue %r is not ready (%s); trying again", self._name, describe_error(error))
                time.sleep(_RETRY_INTERVAL_S)
            else:
                return connection, channel, messages

    def _to_dead_letter(self, message: Any) -> DeadLetter:
        headers = message.headers or {}
        # RabbitMQ adds this header to each message that it dead-letters:
        death = str((headers.get("x-death") or [{}])[0].get("reason", "unknown"))
        reason = headers.get("reason") or _DEATH_REASONS.get(death, death)
        body = message.body
        return DeadLetter(self._name, reason, body if isinstance(body, str) else bytes(body).decode(errors="replace"))


def _release(connection: Connection) -> None:
    with suppress(*_CONNECTION_ERRORS):
        connection.release()
