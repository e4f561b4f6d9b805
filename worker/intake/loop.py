"""The intake's loop: receive event messages, sort and group their objects, send tasks, and only then delete."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence

from binwatch.errors import describe_error
from binwatch.events import ObjectCreated
from binwatch.text import count_noun
from worker.brokers.base import EventMessage, EventQueue
from worker.intake.grouping import Group, chunks
from worker.intake.routing import route
from worker.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

IDLE_WAIT_S = 1
"""Longest wait for a message while the group is empty, and so the delay of a stop."""
_MAX_PAUSE_S = 30.0
REFUSED_WAIT_S = 30.0
"""Delay until a message that the dead-letter queue has refused is redelivered."""
_POLL_S = 0.05
"""Pause between two polls for more messages while a group waits to fill."""
STOP_WITHIN_S = 5.0
"""Longest wait for the intake's thread. If its queue does not answer, it must not use up the worker's grace period."""


Publish = Callable[[list[ObjectCreated]], object]
"""Sends objects as a task; returns once the broker has accepted it, else raises."""


class IntakeLoop:
    """Turns event messages into Celery tasks on its own thread, until it is stopped. Errors do not end it."""

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
        own_prefixes: Sequence[str] = (),
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._events = events
        self._publishers: tuple[tuple[str, Publish], ...] = (("photos", count), ("metadata", read_metadata))
        self._size = group_photos
        self._wait_s = group_wait_s
        self._bucket = bucket
        self._prefixes = (models_prefix, *own_prefixes)
        self._metrics = metrics or WorkerMetrics()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._group: Group[EventMessage] = Group()
        self._problem: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raise the error that now prevents the intake of event messages, if there is one."""
        if self._problem is not None:
            raise self._problem

    def stop(self, timeout_s: float | None = STOP_WITHIN_S) -> None:
        """Stop receiving, send the group as tasks, and wait for that. If it fails, its messages are redelivered."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        pause = 1.0
        while not self._stopping.is_set():
            try:
                self._step()
                self._problem, pause = None, 1.0
            except Exception as error:  # an outage of the queue or the broker; the group is kept and tried again
                self._problem = error
                self._note_age(self._group.receipts)
                logger.warning("intake: %s; next try in %.0f s", error, pause)
                self._stopping.wait(pause)
                pause = min(_MAX_PAUSE_S, pause * 2)
        self._finish()

    def _finish(self) -> None:
        """Send the group as tasks. Otherwise other workers receive it only after the visibility timeout."""
        try:
            if self._group.since is not None:
                self._hand_over()
        except Exception as error:
            logger.warning(
                "intake: %s; to be redelivered: %s", error, count_noun(len(self._group.receipts), "event message")
            )
            self._requeue(self._group.receipts, 0)
        with contextlib.suppress(Exception):  # the messages are safe in the queue
            self._events.close()

    def _step(self) -> None:
        """Receive messages, and send the group as tasks once it is due."""
        if not self._group.is_due(self._size, self._wait_s):
            messages = self._events.receive(IDLE_WAIT_S if self._group.since is None else 0)
            self._note_age(messages)
            for message in messages:
                self._group.add(route(message.body, self._bucket, *self._prefixes), message)
            if not messages and self._group.since is not None:
                self._stopping.wait(_POLL_S)
        if self._group.is_due(self._size, self._wait_s):
            self._hand_over()

    def _note_age(self, messages: Sequence[EventMessage]) -> None:
        self._metrics.oldest("events", max((message.age_s for message in messages), default=0.0))

    def _hand_over(self) -> None:
        for name, publish in self._publishers:
            objects: list[ObjectCreated] = getattr(self._group, name)
            for chunk in chunks(objects, self._size):
                publish(chunk)
                del objects[: len(chunk)]  # if the next chunk fails, only the rest is retried
        rejected = len(self._group.rejected)
        while self._group.rejected:
            self._dead_letter(*self._group.rejected[0])
            self._group.rejected.pop(0)
        self._events.delete(self._group.receipts)
        self._metrics.messages(rejected=rejected, published=max(0, len(self._group.receipts) - rejected))
        if self._group.skipped:
            self._metrics.skipped(self._group.skipped.counts)
            logger.info("skipped: %s", self._group.skipped)
        self._group = Group()

    def _dead_letter(self, message: EventMessage, reason: str) -> None:
        """Dead-letter a message. If the dead-letter queue refuses it, it is redelivered later and stops no others."""
        try:
            self._events.dead_letter(message, reason)
            logger.warning("event message %s dead-lettered: %s", message.id, reason)
        except Exception as error:
            logger.warning(
                "event message %s (%s) cannot be dead-lettered (%s); it is redelivered",
                *(message.id, reason, describe_error(error)),
            )
            self._group.receipts.remove(message)
            self._requeue([message], REFUSED_WAIT_S)

    def _requeue(self, messages: Sequence[EventMessage], after_s: float) -> None:
        with contextlib.suppress(Exception):  # then the queue redelivers them by itself
            self._events.requeue(messages, after_s)
