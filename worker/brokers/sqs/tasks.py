"""Celery's queue on SQS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery
from celery.exceptions import Reject

from binwatch.settings import Settings
from worker.brokers.base import TASK_VISIBILITY_S, TaskQueue
from worker.brokers.sqs.queues import SqsQueue, client_config
from worker.brokers.sqs.transport import TASK_POLLS, TRANSPORT, TaskPolls


class SqsTaskQueue(SqsQueue, TaskQueue):
    """Celery's queue on SQS."""

    def __init__(self, settings: Settings) -> None:
        names = {"task_queue": settings.task_queue, "dead_letter_queue": settings.task_queue + "-dead"}
        super().__init__(settings, TASK_VISIBILITY_S, **names)
        self._polls = TaskPolls()

    def celery_options(self) -> dict[str, Any]:
        endpoint = self._settings.sqs_endpoint_url
        options = {
            "region": self._settings.region,
            "visibility_timeout": TASK_VISIBILITY_S,
            "wait_time_seconds": 1,
            "polling_interval": 0.1,
            "is_secure": endpoint is None or endpoint.startswith("https"),
            "client-config": client_config(self._settings),
            TASK_POLLS: self._polls,
        }
        return {"broker_transport": TRANSPORT, "broker_transport_options": options}

    def prepare(self, *, to_consume: bool = False) -> None:
        """With `to_consume`, check the queue: Celery would create a missing one without a dead-letter queue."""
        if to_consume:
            self.check()

    @property
    def dead_letter_target(self) -> str:
        return self._dead_letter_name

    def probes(self) -> Mapping[str, Callable[[], object]]:
        return {"task polls": self._polls.check}

    def is_redelivered(self, request: Any) -> bool:
        """Return whether SQS has counted more than one delivery."""
        message = ((request.properties or {}).get("delivery_info") or {}).get("sqs_message") or {}
        return int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)) > 1

    def rejection(self, error: Exception) -> Reject:
        """Leave the message in the queue, which redelivers it after its visibility timeout.

        Requeuing it would send a second message.
        """
        return Reject(error, requeue=False)

    def dead_letter(self, app: Celery, message: Any, reason: str) -> None:
        delivery = message.delivery_info
        message.channel.dead_letter(delivery["sqs_message"], delivery["routing_key"], reason)
