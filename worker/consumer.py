"""Celery's consumer of tasks, made robust against any message in the queue.

A message that Celery cannot handle would stop the worker, be acknowledged and so lost, or be rejected without a reason.
Instead, it goes to the dead-letter queue with the reason, as event messages do. This relies on undocumented methods of
Celery's consumer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer

from binwatch.errors import describe_error
from worker.task_messages import InvalidTask, reject_compressed_messages, validate

logger = logging.getLogger(__name__)

CONSUMER = "worker.consumer:TaskConsumer"
"""Value of Celery's setting `worker_consumer`."""
_MAX_REASON_CHARS = 1000


class TaskConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Passes only valid tasks to Celery."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        reject_compressed_messages()
        super().__init__(*args, **kwargs)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)
        connection_errors = (*self.connection_errors, *self.channel_errors)

        def on_message(message: Any) -> None:
            try:
                validate(message, self.app.tasks)
                handle(message)
            except InvalidTask as error:
                self._dead_letter(message, str(error))
            except connection_errors:
                raise
            except Exception as error:  # of any kind: the next message may be valid
                logger.exception("task message %s", message.delivery_tag)
                self._dead_letter(message, f"Celery cannot handle it ({describe_error(error)})")

        return on_message

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._dead_letter(message, f"it cannot be decoded ({describe_error(exc)})")

    def on_unknown_message(self, body: object, message: Any) -> None:
        self._dead_letter(message, "it is not a task")

    def on_unknown_task(self, body: object, message: Any, exc: Exception) -> None:
        self._dead_letter(message, f"there is no such task ({exc})")

    def on_invalid_task(self, body: object, message: Any, exc: Exception) -> None:
        self._dead_letter(message, f"it is not a valid task ({describe_error(exc)})")

    def _dead_letter(self, message: Any, reason: str) -> None:
        """Move a message to the dead-letter queue, with the reason."""
        reason = reason[:_MAX_REASON_CHARS]
        try:
            self.app.queues.tasks.dead_letter(self.app, message, reason)
        except Exception as error:
            # After the rejection, the broker dead-letters the message without the reason (SQS: after many deliveries).
            logger.warning("task message dead-lettered without its reason (%s), which was: %s", error, reason)
            message.reject_log_error(logger, self.connection_errors)
            return
        logger.warning("task message dead-lettered: %s", reason)
        message.ack_log_error(logger, self.connection_errors)
