"""Celery's consumer of tasks, which nothing that lies in the queue can stop.

What Celery cannot handle ends its worker, is acknowledged and so lost, or is rejected without a reason. Here it goes to
the dead-letter queue with the reason, as event messages do. This file relies on the insides of Celery 5.7.0.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from typing import Any

from amqp.exceptions import AMQPError
from celery import Celery
from celery.worker.consumer import Consumer

from worker.amqp_properties import tolerate_unreadable
from worker.intake.rabbitmq import dead_letter_queue
from worker.sqs_transport import Channel as SqsChannel
from worker.task_messages import NoTask, admit, refuse_compressed

logger = logging.getLogger(__name__)

CONSUMER = "worker.consumer:TaskConsumer"
"""What Celery's setting `worker_consumer` names."""
_REASON_LENGTH = 1000


class TaskConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Hands Celery only what is a task."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        tolerate_unreadable()
        refuse_compressed()
        super().__init__(*args, **kwargs)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """What is called with each message."""
        handle = super().create_task_handler(*args, **kwargs)
        broken = (*self.connection_errors, *self.channel_errors)

        def on_message(message: Any) -> None:
            try:
                admit(message, self.app.tasks)
                handle(message)
            except NoTask as error:
                self._set_aside(message, str(error))
            except broken:
                raise
            except Exception as error:  # whatever it is, the next message may be better
                logger.exception("task message %s", message.delivery_tag)
                self._set_aside(message, f"Celery cannot handle it ({type(error).__name__}: {error})")

        return on_message

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """kombu cannot make a message of it."""
        self._set_aside(message, f"it cannot be decoded ({type(exc).__name__}: {exc})")

    def on_unknown_message(self, body: object, message: Any) -> None:
        """Celery takes it for no task."""
        self._set_aside(message, "it is no task")

    def on_unknown_task(self, body: object, message: Any, exc: Exception) -> None:
        """Celery does not know its task."""
        self._set_aside(message, f"there is no such task ({exc})")

    def on_invalid_task(self, body: object, message: Any, exc: Exception) -> None:
        """Celery does not understand it."""
        self._set_aside(message, f"it is no valid task ({type(exc).__name__}: {exc})")

    def _set_aside(self, message: Any, reason: str) -> None:
        """Copy a message to the dead-letter queue, with the reason, and take it off its own."""
        reason = reason[:_REASON_LENGTH]
        try:
            if isinstance(message.channel, SqsChannel):
                message.channel.set_aside(message, reason)
            else:
                _set_aside_on_rabbitmq(self.app, message, reason)
        except Exception as error:
            # RabbitMQ moves it there by itself, without the reason; SQS delivers it again, and does so in the end.
            logger.warning("task message set aside without a reason (%s), which was: %s", error, reason)
            message.reject_log_error(logger, self.connection_errors)
            return
        logger.warning("task message set aside: %s", reason)
        message.ack_log_error(logger, self.connection_errors)


def _set_aside_on_rabbitmq(app: Celery, message: Any, reason: str) -> None:
    name = app.conf.task_default_queue + "-dead"
    body = message.body.encode(errors="surrogateescape") if isinstance(message.body, str) else bytes(message.body)
    given = {"content_type": message.content_type or "application/octet-stream", "content_encoding": "binary"}
    with app.producer_or_acquire() as producer:
        try:
            _publish(producer, name, body, dict(message.headers) | {"reason": reason}, given)
        except (TypeError, ValueError, OverflowError, struct.error, AMQPError):
            # RabbitMQ, or another client, takes values in headers that py-amqp cannot write.
            _publish(producer, name, body, {"reason": reason}, given)


def _publish(producer: Any, queue: str, body: bytes, headers: dict[str, Any], given: dict[str, str]) -> None:
    declare = [dead_letter_queue(queue)]
    producer.publish(body, exchange="", routing_key=queue, declare=declare, mandatory=True, headers=headers, **given)
