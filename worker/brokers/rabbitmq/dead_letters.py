"""A dead-letter queue of RabbitMQ."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from amqp.exceptions import AMQPError, MessageNacked
from kombu.connection import Connection

from worker.brokers.base import DeadLetter, DeadLetterQueue, QueueError
from worker.brokers.rabbitmq.connections import BrokerBlocked, connect_to

logger = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""How long a queue may need until it can be read, once its broker answers."""
_RETRY_S = 0.5
_BROKEN = (AMQPError, MessageNacked, OSError, BrokerBlocked)


class RabbitDeadLetters(DeadLetterQueue):
    """A dead-letter queue of RabbitMQ, and the queue that its messages came from; `declare` declares both."""

    def __init__(self, url: str, name: str, source: str, declare: Callable[[Connection], object]) -> None:
        self._url = url
        self._name = name
        self._source = source
        self._declare = declare

    def messages(self) -> list[DeadLetter]:
        """All messages, which stay in the queue."""
        with self._received() as (_, messages):
            return [self._letter(message) for message in messages]

    def redrive(self) -> int:
        """Move all messages back to the queue that they came from. Raises QueueError if some could not be moved."""
        moved = 0
        with self._received() as (channel, messages):
            try:
                for message in messages:
                    channel.basic_publish_confirm(message, exchange="", routing_key=self._source, mandatory=True)
                    channel.basic_ack(message.delivery_tag)
                    moved += 1
            except _BROKEN as error:
                raise QueueError(
                    f"redrove {moved} of {len(messages)} messages of {self._name!r}, then RabbitMQ failed"
                    f" ({_said(error)}); start again for the rest"
                ) from error
        return moved

    def delete(self, wanted: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
        """Delete the messages that are `wanted`; yields each once it is deleted."""
        with self._received() as (channel, messages):
            for message in messages:
                letter = self._letter(message)
                if wanted(letter):
                    self._acknowledge(channel, message)
                    yield letter

    def _acknowledge(self, channel: Any, message: Any) -> None:
        try:
            channel.basic_ack(message.delivery_tag)
        except _BROKEN as error:
            raise QueueError(
                f"RabbitMQ failed ({_said(error)}) before all messages of {self._name!r} were deleted; start"
                " again for the rest"
            ) from error

    @contextmanager
    def _received(self) -> Iterator[tuple[Any, list[Any]]]:
        """All messages, and the channel that received them; those not acknowledged at the end stay."""
        connection, channel, messages = self._receive_patiently()
        try:
            yield channel, messages
        finally:
            _requeue(channel)
            _release(connection)

    def _receive_patiently(self) -> tuple[Connection, Any, list[Any]]:
        """A broker that has just started may answer before its quorum queues do: those hold elections first."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            connection = connect_to(self._url)
            try:
                return connection, *self._receive(connection)
            except _BROKEN as error:
                _release(connection)
                if time.monotonic() > deadline:
                    raise QueueError(
                        f"RabbitMQ answers, but its queue {self._name!r} did not within {PATIENCE_S:.0f} s"
                        f" ({_said(error)}); if the broker has just started, try again, else see its log"
                    ) from error
                logger.warning("queue %r is not ready (%s); trying again", self._name, _said(error))
                time.sleep(_RETRY_S)

    def _receive(self, connection: Connection) -> tuple[Any, list[Any]]:
        self._declare(connection)
        channel = connection.channel()
        messages = []
        while (message := channel.basic_get(self._name)) is not None:
            messages.append(message)
        return channel, messages

    def _letter(self, message: Any) -> DeadLetter:
        headers = message.headers or {}
        reason = headers.get("reason") or _death(headers)
        body = message.body
        return DeadLetter(self._name, reason, body if isinstance(body, str) else bytes(body).decode(errors="replace"))


def _requeue(channel: Any) -> None:
    """Requeue what was not acknowledged. Closing the connection does it too, but only some time afterwards."""
    with suppress(*_BROKEN):
        channel.basic_recover(requeue=True)


def _release(connection: Connection) -> None:
    with suppress(*_BROKEN):
        connection.release()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _death(headers: dict[str, Any]) -> str:
    """The reason that RabbitMQ notes in a message that it moved by itself."""
    deaths = headers.get("x-death") or [{}]
    return {"delivery_limit": "delivered too often", "rejected": "rejected by the worker"}.get(
        deaths[0].get("reason"), str(deaths[0].get("reason", "unknown"))
    )
