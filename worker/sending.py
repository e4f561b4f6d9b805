"""Hands photos and metadata files to Celery, in groups."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from celery import Celery

from binwatch.events import Created
from worker.brokers.base import TaskQueue

COUNT_PHOTOS = "binwatch.count_photos"
READ_METADATA = "binwatch.read_metadata"
SENT_AT = "sent_at"
REASON = "reason"
"""Header of a task that was set aside: why. It stays when a person puts the task back."""
_REASON_LENGTH = 1000


class Sender:
    """Sends groups of at most `size` objects. Each method returns once the broker has them, and raises if it cannot."""

    def __init__(self, app: Celery, queue: TaskQueue, size: int) -> None:
        self._app = app
        self._queue = queue
        self._size = size

    def count(self, photos: Sequence[Created]) -> None:
        """Have photos counted."""
        self._send(COUNT_PHOTOS, photos)

    def read_metadata(self, files: Sequence[Created]) -> None:
        """Have expected quantities read."""
        self._send(READ_METADATA, files)

    def resend(self, task: str, objects: list[dict[str, Any]], *, suspect: bool) -> None:
        """Send objects that a task had in hand anew; `suspect`: a worker may have died of them."""
        self._app.send_task(task, args=[objects], kwargs={"suspect": suspect}, headers=_now())

    def dead_letter(self, task: str, objects: list[dict[str, Any]], reason: str) -> None:
        """Send a task to the dead-letter queue, with the reason."""
        headers = {REASON: reason[:_REASON_LENGTH]}
        self._app.send_task(task, args=[objects], queue=self._queue.dead_letter_target, headers=headers)

    def backlog(self) -> int:
        """Tasks that wait in the queue, as far as the broker knows."""
        with self._app.connection_for_read() as connection:
            name = self._app.conf.task_default_queue
            return int(connection.default_channel.queue_declare(queue=name, passive=True).message_count)

    def check(self) -> None:
        """Raise unless the broker answers and accepts messages."""
        self.backlog()
        self._queue.check_accepts(self._app)

    def _send(self, task: str, objects: Sequence[Created]) -> None:
        for start in range(0, len(objects), self._size):
            group = objects[start : start + self._size]
            self._app.send_task(task, args=[[as_json(item) for item in group]], headers=_now())


def _now() -> dict[str, float]:
    """Header of a task: when it was sent. Neither SQS nor RabbitMQ tell Celery."""
    return {SENT_AT: time.time()}


def as_json(item: Created) -> dict[str, Any]:
    """An object as a task carries it."""
    return asdict(item) | {"time": item.time.isoformat() if item.time else None}
