"""What ended in the dead-letter queues: to look at, to put back once the cause is gone, or to throw away."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from amqp.exceptions import AMQPError, MessageNacked
from kombu.connection import Connection

from binwatch.settings import EventSource, Settings
from worker.amqp_properties import tolerate_unreadable
from worker.intake.rabbitmq import dead_letter_queue, declare, event_queue, rabbitmq_url, task_queue
from worker.queues import QueueError, queue_url, sqs_client
from worker.rabbitmq import BrokerBlocked, connect_to

logger = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""How long a queue may need until it can be read, once its broker answers."""
_RETRY_S = 0.5
_BROKEN = (AMQPError, MessageNacked, OSError, BrokerBlocked)
_PEEK_S = 60
"""How long a message that was looked at stays hidden on SQS if this process dies meanwhile."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a dead-letter queue: why it is there, as far as it says, and how its body starts."""

    queue: str
    reason: str
    body: str

    @property
    def id(self) -> str:
        """What a person names it by. RabbitMQ gives messages none; messages that say the same have the same."""
        return hashlib.sha256("\0".join((self.queue, self.reason, self.body)).encode(errors="replace")).hexdigest()[:12]


class DeadLetters(Protocol):
    """One dead-letter queue and the queue that its messages came from."""

    def messages(self) -> list[DeadLetter]:
        """All that is there, which stays there."""

    def put_back(self) -> int:
        """Move all that is there now to where it came from; returns how many."""

    def throw_away(self, wanted: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
        """Delete what is there now and `wanted`, for good; each is handed over once it is deleted."""


def open_dead_letters(settings: Settings) -> list[DeadLetters]:
    """The dead-letter queues of the event messages and of the tasks."""
    queues: list[DeadLetters] = []
    events = (settings.event_dead_letter_queue, settings.event_queue)
    tasks = (settings.task_queue + "-dead", settings.task_queue)
    if settings.event_source is EventSource.SQS:
        queues.append(SqsDeadLetters(sqs_client(settings), *events))
    elif settings.event_source is EventSource.RABBITMQ:
        target = event_queue(settings.event_queue, settings.event_dead_letter_queue)
        queues.append(RabbitDeadLetters(rabbitmq_url(settings), events[0], target))
    broker = settings.broker_url.get_secret_value()
    if broker.startswith("sqs"):
        queues.append(SqsDeadLetters(sqs_client(settings), *tasks))
    else:
        queues.append(RabbitDeadLetters(broker, tasks[0], task_queue(settings.task_queue)))
    return queues


class SqsDeadLetters:
    """A dead-letter queue on SQS."""

    def __init__(self, client: Any, dead: str, source: str) -> None:
        self._client = client
        self._name = dead
        self._dead = queue_url(client, dead)
        self._source = queue_url(client, source)

    def messages(self) -> list[DeadLetter]:
        """All that is there, which stays there."""
        with self._taken() as messages:
            return [self._shown(message) for message in messages]

    def put_back(self) -> int:
        """Move all that is there now to where it came from; a crash between the two steps leaves a copy in both."""
        with self._taken() as messages:
            for message in messages:
                attributes = {k: v for k, v in message.get("MessageAttributes", {}).items() if k != "reason"}
                self._client.send_message(
                    QueueUrl=self._source, MessageBody=message["Body"], MessageAttributes=attributes
                )
                self._client.delete_message(QueueUrl=self._dead, ReceiptHandle=message["ReceiptHandle"])
            return len(messages)

    def throw_away(self, wanted: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
        """Delete what is there now and `wanted`, for good; each is handed over once it is deleted."""
        with self._taken() as messages:
            for message in messages:
                letter = self._shown(message)
                if wanted(letter):
                    self._client.delete_message(QueueUrl=self._dead, ReceiptHandle=message["ReceiptHandle"])
                    yield letter

    @contextmanager
    def _taken(self) -> Iterator[list[dict[str, Any]]]:
        """Receive all messages; those that are still there at the end can be seen again at once."""
        found: dict[str, dict[str, Any]] = {}
        # Until none is new, not until none is left: in a very long queue, the first can be seen again by then.
        while new := {m["MessageId"]: m for m in self._receive() if m["MessageId"] not in found}:
            found |= new
        messages = list(found.values())
        try:
            yield messages
        finally:
            for message in messages:
                try:
                    self._client.change_message_visibility(
                        QueueUrl=self._dead, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                    )
                except self._client.exceptions.ClientError:  # deleted
                    continue

    def _receive(self) -> list[dict[str, Any]]:
        answer = self._client.receive_message(
            QueueUrl=self._dead,
            MaxNumberOfMessages=10,
            VisibilityTimeout=_PEEK_S,
            WaitTimeSeconds=1,  # without a wait, SQS asks only some of its servers, and a queue looks empty that is not
            MessageAttributeNames=["All"],
            AttributeNames=["ApproximateReceiveCount"],
        )
        received: list[dict[str, Any]] = answer.get("Messages", [])
        return received

    def _shown(self, message: dict[str, Any]) -> DeadLetter:
        reason = message.get("MessageAttributes", {}).get("reason", {}).get("StringValue")
        body = message["Body"]
        if reason is None:
            reason, body = _opened(body)
        return DeadLetter(self._name, reason or "delivered too often", body)


def _opened(body: str) -> tuple[str | None, str]:
    """Reason and content of a Celery task, which kombu puts into envelopes of base64; any other body as it is."""
    try:
        envelope = json.loads(body if body.startswith("{") else base64.b64decode(body, validate=True))
        content = base64.b64decode(envelope["body"]).decode()
        reason = envelope["headers"].get("reason")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, body
    return reason, content


class RabbitDeadLetters:
    """A dead-letter queue on RabbitMQ. Raises QueueError if it cannot be read, or not all of it could be moved."""

    def __init__(self, url: str, dead: str, source: Any) -> None:
        tolerate_unreadable()
        self._url = url
        self._dead = dead_letter_queue(dead)
        self._source = source

    def messages(self) -> list[DeadLetter]:
        """All that is there, which stays there."""
        with self._taken() as (_, messages):
            return [self._shown(message) for message in messages]

    def put_back(self) -> int:
        """Move all that is there now to where it came from; a crash between the two steps leaves a copy in both."""
        moved = 0
        with self._taken() as (channel, messages):
            try:
                for message in messages:
                    channel.basic_publish_confirm(message, exchange="", routing_key=self._source.name, mandatory=True)
                    channel.basic_ack(message.delivery_tag)
                    moved += 1
            except _BROKEN as error:
                raise QueueError(
                    f"put back {moved} of {len(messages)} messages of {self._dead.name!r}, then RabbitMQ failed"
                    f" ({_said(error)}); start again for the rest"
                ) from error
        return moved

    def throw_away(self, wanted: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
        """Delete what is there now and `wanted`, for good; each is handed over once it is deleted."""
        with self._taken() as (channel, messages):
            for message in messages:
                letter = self._shown(message)
                if wanted(letter):
                    self._delete(channel, message)
                    yield letter

    def _delete(self, channel: Any, message: Any) -> None:
        try:
            channel.basic_ack(message.delivery_tag)
        except _BROKEN as error:
            raise QueueError(
                f"RabbitMQ failed ({_said(error)}) before all messages of {self._dead.name!r} were thrown away; start"
                " again for the rest"
            ) from error

    @contextmanager
    def _taken(self) -> Iterator[tuple[Any, list[Any]]]:
        """All messages, and the channel that they came through; those not acknowledged at the end stay."""
        connection, channel, messages = self._take_patiently()
        try:
            yield channel, messages
        finally:
            _requeue(channel)
            _release(connection)

    def _take_patiently(self) -> tuple[Connection, Any, list[Any]]:
        """A broker that has just started may answer before its quorum queues do: those hold elections first."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            connection = connect_to(self._url)
            try:
                return connection, *self._take(connection)
            except _BROKEN as error:
                _release(connection)
                if time.monotonic() > deadline:
                    raise QueueError(
                        f"RabbitMQ answers, but its queue {self._dead.name!r} did not within {PATIENCE_S:.0f} s"
                        f" ({_said(error)}); if the broker has just started, try again, else see its log"
                    ) from error
                logger.warning("queue %r is not ready (%s); trying again", self._dead.name, _said(error))
                time.sleep(_RETRY_S)

    def _take(self, connection: Connection) -> tuple[Any, list[Any]]:
        declare(connection, [self._dead, self._source])
        channel = connection.channel()
        messages = []
        while (message := channel.basic_get(self._dead.name)) is not None:
            messages.append(message)
        return channel, messages

    def _shown(self, message: Any) -> DeadLetter:
        headers = message.headers or {}
        reason = headers.get("reason") or _death(headers)
        body = message.body
        return DeadLetter(
            self._dead.name, reason, body if isinstance(body, str) else bytes(body).decode(errors="replace")
        )


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
    """RabbitMQ's own account of a message that it moved by itself."""
    deaths = headers.get("x-death") or [{}]
    return {"delivery_limit": "delivered too often", "rejected": "rejected by the worker"}.get(
        deaths[0].get("reason"), str(deaths[0].get("reason", "unknown"))
    )
