"""The loop of the intake: receive event messages, group their objects, send tasks, and only then delete messages."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence

from binwatch.errors import describe_error
from binwatch.events import ObjectCreated
from binwatch.text import count_noun
from worker.brokers.base import EventMessage, EventQueue
from worker.intake.grouping import Group, split_into_chunks
from worker.intake.routing import route
from worker.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

MAX_IDLE_WAIT_S = 1
"""Maximum wait for a message while the group is empty. A stop may take as long."""
_MAX_BACKOFF_S = 30.0
REDELIVERY_DELAY_S = 30.0
"""Delay before the redelivery of a message that the dead-letter queue has refused."""
_POLL_INTERVAL_S = 0.05
"""Interval between polls for more messages while a group fills up."""
STOP_TIMEOUT_S = 5.0
"""Maximum wait for the intake's thread, whose queue may not answer. Far less than the worker's grace period."""


Publish = Callable[[list[ObjectCreated]], object]
"""Sends objects as a task; returns once the broker has accepted it, or raises."""


class IntakeLoop:
    """Turns event messages into Celery tasks on its own thread, from `start` to `stop`. Continues after errors."""

    def __init__(
        self,
        events: EventQueue,
        *,
        count: Publish,
        read_metadata: Publish,
        group_photos: int,
        group_wait_s: float,
        bucket: str,
        models_prefix: str,
        ignored_prefixes: Sequence[str] = (),
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._events = events
        self._publishers: tuple[tuple[str, Publish], ...] = (("photos", count), ("metadata", read_metadata))
        self._group_photos = group_photos
        self._group_wait_s = group_wait_s
        self._bucket = bucket
        self._prefixes = (models_prefix, *ignored_prefixes)
        self._metrics = metrics or WorkerMetrics()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._group: Group[EventMessage] = Group()
        self._problem: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raise the error that currently prevents the intake of event messages, if any."""
        if self._problem is not None:
            raise self._problem

    def stop(self, timeout_s: float | None = STOP_TIMEOUT_S) -> None:
        """Stop receiving, and wait up to `timeout_s` until the group is sent as tasks.

        If it cannot be sent, its messages are redelivered.
        """
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        backoff_s = 1.0
        while not self._stopping.is_set():
            try:
                self._receive_and_send()
                self._problem, backoff_s = None, 1.0
            except Exception as error:  # an outage of the queue or the broker: keep the group, and retry
                self._problem = error
                self._observe_age(self._group.receipts)
                logger.warning("intake: %s; next try in %.0f s", error, backoff_s)
                self._stopping.wait(backoff_s)
                backoff_s = min(_MAX_BACKOFF_S, backoff_s * 2)
        self._send_rest()

    def _send_rest(self) -> None:
        """Send the last group as tasks: other workers would receive its messages only after the visibility timeout."""
        try:
            if self._group.started_at is not None:
                self._send_group()
        except Exception as error:
            logger.warning(
                "intake: %s; to be redelivered: %s", error, count_noun(len(self._group.receipts), "event message")
            )
            self._requeue(self._group.receipts, 0)
        with contextlib.suppress(Exception):  # the messages are still in the queue
            self._events.close()

    def _receive_and_send(self) -> None:
        """Receive messages, and send the group as tasks if it is due."""
        if not self._group.is_due(self._group_photos, self._group_wait_s):
            messages = self._events.receive(MAX_IDLE_WAIT_S if self._group.started_at is None else 0)
            self._observe_age(messages)
            for message in messages:
                self._group.add(route(message.body, self._bucket, *self._prefixes), message)
            if not messages and self._group.started_at is not None:
                self._stopping.wait(_POLL_INTERVAL_S)
        if self._group.is_due(self._group_photos, self._group_wait_s):
            self._send_group()

    def _observe_age(self, messages: Sequence[EventMessage]) -> None:
        self._metrics.set_oldest_message_age("events", max((message.age_s for message in messages), default=0.0))

    def _send_group(self) -> None:
        """Send the group as tasks, dead-letter invalid messages, and delete all its messages."""
        for name, publish in self._publishers:
            objects: list[ObjectCreated] = getattr(self._group, name)
            for chunk in split_into_chunks(objects, self._group_photos):
                publish(chunk)
                del objects[: len(chunk)]  # if the next chunk fails, only the rest is retried
        n_rejected = len(self._group.rejected)
        while self._group.rejected:
            self._dead_letter(*self._group.rejected[0])
            self._group.rejected.pop(0)
        self._events.delete(self._group.receipts)
        n_published = max(0, len(self._group.receipts) - n_rejected)
        self._metrics.count_event_messages(published=n_published, rejected=n_rejected)
        if self._group.skipped:
            self._metrics.count_skipped(self._group.skipped.counts)
            logger.info("skipped: %s", self._group.skipped)
        self._group = Group()

    def _dead_letter(self, message: EventMessage, reason: str) -> None:
        """Dead-letter a message, or have it redelivered later if the dead-letter queue refuses it."""
        try:
            self._events.dead_letter(message, reason)
            logger.warning("event message %s dead-lettered: %s", message.id, reason)
        except Exception as error:
            logger.warning(
                "event message %s (%s) cannot be dead-lettered (%s); it is redelivered",
                *(message.id, reason, describe_error(error)),
            )
            self._group.receipts.remove(message)
            self._requeue([message], REDELIVERY_DELAY_S)

    def _requeue(self, messages: Sequence[EventMessage], after_s: float) -> None:
        with contextlib.suppress(Exception):  # the queue then redelivers them by itself
            self._events.requeue(messages, after_s)
