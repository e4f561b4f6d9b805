"""Celery's queue on RabbitMQ."""

from __future__ import annotations

import struct
import time
from functools import partial
from typing import Any

from amqp.exceptions import AMQPError
from celery import Celery
from celery.exceptions import Reject
from kombu.entity import Queue

from binwatch.settings import Settings
from worker.brokers.base import TaskQueue
from worker.brokers.rabbitmq.connections import check_accepts_messages, make_connection, use_guarded_transports
from worker.brokers.rabbitmq.queues import RabbitQueue, check_permissions, dead_letter_queue, publish, task_queue

REQUEUE_DELAY_S = 5.0
"""Wait before a task is requeued if RabbitMQ has refused the messages that were to replace it."""


class RabbitTaskQueue(RabbitQueue, TaskQueue):
    """Celery's queue on RabbitMQ."""

    def __init__(self, settings: Settings) -> None:
        name = settings.task_queue
        super().__init__(settings.broker_url.get_secret_value(), task_queue(name), dead_letter_queue(name + "-dead"))

    def celery_options(self) -> dict[str, Any]:
        use_guarded_transports()
        return {"task_queues": [self._queue]}

    def prepare(self, *, to_consume: bool = False) -> None:
        """Declare both queues, so that rejected messages are kept; with `to_consume`, also check permissions."""
        with make_connection(self._url) as connection:
            self._declare(connection)
            if to_consume:
                check_permissions(connection, self._queue)

    @property
    def dead_letter_target(self) -> Queue:
        return self._dead_letter_queue

    def check_accepts_messages(self, app: Celery) -> None:
        """Raise unless RabbitMQ accepts messages: it may be low on disk or memory."""
        with app.connection_for_write() as connection:
            check_accepts_messages(connection)

    def is_redelivered(self, request: Any) -> bool:
        """Return whether RabbitMQ has set its `redelivered` flag."""
        return bool((request.delivery_info or {}).get("redelivered"))

    def rejection(self, error: Exception) -> Reject:
        """Requeue the message, since RabbitMQ would dead-letter it otherwise.

        Waits first, since RabbitMQ redelivers a requeued message at once.
        """
        time.sleep(REQUEUE_DELAY_S)
        return Reject(error, requeue=True)

    def dead_letter(self, app: Celery, message: Any, reason: str) -> None:
        queue, headers = self._dead_letter_queue, {"reason": reason}
        with app.producer_or_acquire() as producer:
            send = partial(publish, producer, queue, message.body, content_type=message.content_type, declare=[queue])
            try:
                send(headers={**message.headers, **headers})
            except (TypeError, ValueError, OverflowError, struct.error, AMQPError):
                # The headers have values that py-amqp cannot write, although RabbitMQ accepts them from other clients.
                send(headers=headers)
