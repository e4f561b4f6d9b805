"""RabbitMQ queues: their properties, declaration and checks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from amqp.exceptions import AccessRefused, NotAllowed, NotFound, PreconditionFailed
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.messaging import Producer

from binwatch.text import pluralize
from worker.brokers.base import BrokerQueue, BrokerUnreachable, DeadLetterQueue, QueueError
from worker.brokers.internals import tolerate_unreadable_properties
from worker.brokers.rabbitmq.connections import BrokerBlocked, check_accepts_messages, make_connection
from worker.brokers.rabbitmq.dead_letters import RabbitDeadLetters

_CONNECT_TIMEOUT_S = 5.0
_UNLIMITED_DELIVERIES = 1_000_000  # without a limit, quorum queues of RabbitMQ 4 drop messages after 20 deliveries
_MAX_DELIVERIES = 1000
"""A stopping worker adds a delivery to each message that it has prefetched, so RabbitMQ's default of 20 is too low."""
_CHECK_CONSUMER_TAG = "binwatch-check"
"""Tag of a consumer that only checks the permission to consume."""


def publish(
    producer: Producer,
    queue: Queue,
    body: str | bytes,
    headers: Mapping[str, Any],
    content_type: str = "",
    **options: Any,
) -> None:
    """Send the body of a received message, unchanged, to a queue. Raises unless RabbitMQ confirms it."""
    producer.publish(
        body.encode(errors="surrogateescape") if isinstance(body, str) else bytes(body),
        exchange="",
        routing_key=queue.name,
        headers=headers,
        content_type=content_type or "application/octet-stream",
        content_encoding="binary",
        mandatory=True,
        delivery_mode="persistent",
        **options,
    )


class RabbitQueue(BrokerQueue):
    """A queue of RabbitMQ and its dead-letter queue."""

    def __init__(self, url: str, queue: Queue, dead_letter_queue: Queue) -> None:
        tolerate_unreadable_properties()
        self._url = url
        self._queue = queue
        self._dead_letter_queue = dead_letter_queue

    def create(self) -> list[str]:
        with make_connection(self._url) as connection:
            _connect(connection)
            missing = [queue.name for queue in (self._queue, self._dead_letter_queue) if not _exists(connection, queue)]
            self._declare(connection)
        return missing

    def unchecked_queues(self) -> list[str]:
        queues = (self._queue, self._dead_letter_queue)
        return [queue.name for queue in queues if queue.no_declare]  # type: ignore[attr-defined]  # kombu sets it

    def depths(self) -> tuple[int, int]:
        # A new connection per call: a permanent one would need heartbeats, and its death could go unnoticed.
        # Not its default_channel, which retries for longer than _CONNECT_TIMEOUT_S.
        with (
            make_connection(self._url, connect_timeout=_CONNECT_TIMEOUT_S) as connection,
            connection.channel() as channel,
        ):
            waiting, dead = (
                int(channel.queue_declare(queue.name, passive=True).message_count)
                for queue in (self._queue, self._dead_letter_queue)
            )
        return waiting, dead

    def dead_letters(self) -> DeadLetterQueue:
        return RabbitDeadLetters(self._url, self._dead_letter_queue.name, self._queue.name, self._declare)

    def _declare(self, connection: Connection) -> None:
        declare(connection, [self._dead_letter_queue, self._queue])


def event_queue(name: str, dead_letter: str) -> Queue:
    """Return the queue for event messages.

    A quorum queue keeps messages on disk even if their sender marks them as transient, as versitygw does. So a restart
    of the broker loses none.
    """
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead_letter}
    return _queue(name, "quorum", {"x-delivery-limit": _MAX_DELIVERIES, **arguments})


def dead_letter_queue(name: str) -> Queue:
    """Return a queue whose messages stay until a person redrives or deletes them, however often they are listed."""
    return _queue(name, "quorum", {"x-delivery-limit": _UNLIMITED_DELIVERIES})


def task_queue(name: str) -> Queue:
    """Return Celery's queue.

    A classic queue: while tasks wait for a retry, Celery raises the global prefetch limit, which quorum queues lack.
    """
    return _queue(name, "classic", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name + "-dead"})


def _queue(name: str, kind: str, arguments: dict[str, str | int]) -> Queue:
    arguments = {"x-queue-type": kind, **arguments}  # otherwise the default of the virtual host applies
    # RabbitMQ's default exchange has no name: the routing key is the queue's name.
    return Queue(name, Exchange(""), routing_key=name, durable=True, queue_arguments=arguments)


def declare(connection: Connection, queues: Sequence[Queue]) -> None:
    """Declare the queues. Raises QueueError if one exists with other properties or cannot be declared.

    If the user lacks the permission to declare a queue, the queue must exist. It is then never declared, not even by
    Celery.
    """
    _connect(connection)
    refused: list[Queue] = []
    for queue in queues:
        try:
            with connection.channel() as channel:  # RabbitMQ closes the channel on a mismatch
                queue(channel).declare()
        except AccessRefused:
            refused.append(queue)
        except PreconditionFailed as error:
            raise QueueError(
                f"queue {queue.name!r} exists with other properties ({error}): once it is empty, delete it, and start"
                " again"
            ) from error
        except connection.channel_errors as error:
            raise _declaration_failed(queue, error) from error
        except connection.connection_errors as error:
            raise _unreachable(connection, error) from error
    missing = [repr(queue.name) for queue in refused if not _exists(connection, queue)]
    if missing:
        pronoun = pluralize(len(missing), "it", "them")
        raise QueueError(
            f"{pluralize(len(missing), 'queue')} {', '.join(missing)} {pluralize(len(missing), 'does', 'do')} not"
            f" exist, and RabbitMQ's user {connection.userid!r} lacks the permission to configure {pronoun}: grant the"
            " permission, or run python -m worker setup as a user who has it"
        )
    for queue in refused:
        queue.no_declare = True  # type: ignore[attr-defined]  # kombu sets it


def _exists(connection: Connection, queue: Queue) -> bool:
    """Return whether the queue exists, whatever its properties. Needs no permissions. Raises as `declare` does."""
    try:
        with connection.channel() as channel:
            channel.queue_declare(queue.name, passive=True)
    except NotFound:
        return False
    except connection.channel_errors as error:
        raise _declaration_failed(queue, error) from error
    except connection.connection_errors as error:
        raise _unreachable(connection, error) from error
    return True


def _declaration_failed(queue: Queue, error: Exception) -> QueueError:
    return QueueError(f"queue {queue.name!r} cannot be declared ({error}); see RabbitMQ's log")


def _unreachable(connection: Connection, error: Exception) -> BrokerUnreachable:
    """Return an error that names the broker by its URL without the password, since the settings may name two."""
    return BrokerUnreachable(
        f"RabbitMQ at {connection.as_uri()} cannot be reached ({error}); check BINWATCH_BROKER_URL (or"
        " BINWATCH_EVENT_BROKER_URL) and the broker"
    )


def check_permissions(connection: Connection, queue: Queue) -> None:
    """Raise QueueError unless RabbitMQ's user may read from the queue and publish. No message is lost."""
    try:
        with connection.channel() as channel:
            channel.basic_qos(0, 1, False)
            channel.basic_consume(queue.name, _CHECK_CONSUMER_TAG, callback=lambda _: None)
            channel.basic_cancel(_CHECK_CONSUMER_TAG)  # messages delivered meanwhile are requeued as the channel closes
        with contextlib.suppress(BrokerBlocked):  # may be temporary, and waiting messages can be processed meanwhile
            check_accepts_messages(connection)
    except AccessRefused as error:
        raise QueueError(
            f"queue {queue.name!r} cannot be used ({error}): give RabbitMQ's user {connection.userid!r} the permissions"
            " to read from it and to write to the exchange amq.default"
        ) from error


def _connect(connection: Connection) -> None:
    try:
        connection.connect()
    except AccessRefused as error:
        raise QueueError(
            "RabbitMQ refuses the user or the password of BINWATCH_BROKER_URL (or BINWATCH_EVENT_BROKER_URL): correct"
            " them; RabbitMQ keeps the ones that it was first started with"
        ) from error
    except NotAllowed as error:
        raise QueueError(
            f"RabbitMQ refuses the virtual host ({error}): correct what follows the host in BINWATCH_BROKER_URL (or"
            " BINWATCH_EVENT_BROKER_URL), or give the user permissions there"
        ) from error
    except connection.connection_errors as error:
        raise _unreachable(connection, error) from error
