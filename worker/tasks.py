"""The Celery tasks: thin wrappers around worker.counting. Each takes objects as JSON and returns nothing."""

from __future__ import annotations

import logging
import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from celery import Task
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from binwatch.errors import describe_error
from binwatch.events import ObjectCreated
from binwatch.records.queries import crashed_metadata, crashed_photos
from binwatch.records.ranking import update_p_values
from binwatch.records.store import RecordsNotWritable
from binwatch.settings import EventSource, Settings
from binwatch.text import count_noun
from worker.counting import Counting, Outage
from worker.health import HealthChecks
from worker.metrics import PeriodicStep
from worker.pipeline import EngineBroken
from worker.publisher import COUNT_PHOTOS, READ_METADATA, REASON, SENT_AT, Publisher, as_json
from worker.reconcile import send_unrecorded

MAX_BACKOFF_S = 60.0
"""Maximum delay of a retry. Well below the visibility timeout of a task's message."""
MAX_CRASHES = 10
"""Number of crashes after which an object that was alone in its task is considered the cause, and dead-lettered."""
_ISOLATION_LOCK = threading.Lock()
"""Held while a process handles an isolated redelivered object, so that no object is blamed for another's crash.

Groups do not wait for the lock: after a crash of the broker, all groups in flight may be redelivered, and must be
processed quickly. A group with a poison object is halved at most eight times. So even if all its crashes are blamed
on the same isolated object, that object stays below MAX_CRASHES.
"""
MAX_FETCH_RETRIES = 10
"""Maximum number of retries, over about six minutes, of an object that cannot be fetched although S3 answers. After
that, it is recorded as failed."""
_MAX_DOUBLINGS = 20  # of the backoff: in an outage of days, a larger exponent would overflow a float

_JsonObjects = list[dict[str, Any]]
"""Objects as the argument of a task."""
_Process = Callable[[list[ObjectCreated]], list[Outage]]
"""Processes objects; returns those affected by an outage, which are retried."""

RECONCILE = "binwatch.reconcile"
_MAX_BACKLOG = 50
"""With more waiting tasks than this, reconcile sends nothing: it would mostly find the objects of these tasks."""

logger = logging.getLogger(__name__)


class _ObjectsTask(Task):  # type: ignore[misc]  # Celery has no types
    """Processes objects. Those affected by an outage are retried with backoff; the others are recorded.

    An object that makes the task raise, or crashes the process, must not block the others: the group is halved until
    that object is isolated, and then the object is dead-lettered with the reason.

    A redelivery does not prove a crash: when a worker is stopped or loses its connection, brokers also redeliver the
    tasks that it had only prefetched, or was delaying for a retry. So an isolated redelivered object is noted in the
    records before it is processed, and only a note that is left behind counts as a crash.
    """

    acks_late = True
    acks_on_failure_or_timeout = False
    reject_on_worker_lost = True
    max_retries = None
    ignore_result = True
    name: ClassVar[str]

    def __init__(self, counting: Counting, publisher: Publisher, retry_wait_s: float) -> None:
        self._counting = counting
        self._publisher = publisher
        self._retry_wait_s = retry_wait_s

    @abstractmethod
    def process(self, objects: list[ObjectCreated]) -> list[Outage]:
        """Process the objects; return those affected by an outage."""

    @abstractmethod
    def record_crashed(self, objects: list[ObjectCreated], reason: str) -> list[Outage]:
        """Record that the objects crash workers or tasks; return those affected by an outage."""

    @abstractmethod
    def crashed_keys(self, objects: list[ObjectCreated]) -> set[str]:
        """Return the keys of the objects that are recorded as crashed and unchanged since."""

    @abstractmethod
    def record_not_fetched(self, outages: list[Outage]) -> list[Outage]:
        """Record objects that could not be fetched after all retries; return those whose bucket does not answer."""

    def check(self, objects: _JsonObjects, redelivered: bool = False) -> None:
        """Raise unless `run` can be called with these arguments, which may come from any sender."""
        if not isinstance(objects, list) or not objects:
            raise ValueError("the list of objects is missing")
        for item in map(parse_object, objects):
            if not all(isinstance(value, str) for value in (item.bucket, item.key, item.etag)):
                raise TypeError("bucket, key and ETag must be strings")

    def run(self, objects: _JsonObjects, redelivered: bool = False) -> None:
        """Celery's entry point. `redelivered`: the objects come from a group whose message was redelivered."""
        sent_at = self.request.get(SENT_AT)
        if isinstance(sent_at, int | float) and not self.request.retries:  # the age of a retry would include the outage
            self._counting.metrics.set_oldest_message_age("tasks", time.time() - sent_at)
        with self._counting.starvation.track_task():
            self._run_delivery([parse_object(item) for item in objects], redelivered)

    def _run_delivery(self, objects: list[ObjectCreated], from_redelivered: bool) -> None:
        is_redelivered = self.app.queues.tasks.is_redelivered(self.request)
        if is_redelivered and len(objects) > 1:
            self._resend_halves(objects, redelivered=True)
        elif (is_redelivered or from_redelivered) and len(objects) == 1:
            with _ISOLATION_LOCK:
                self._run(objects, self._process_isolated)
        elif from_redelivered:
            self._run(objects, self._process_half)
        else:
            self._run(objects, self.process)

    def _run(self, objects: list[ObjectCreated], process: _Process) -> None:
        """Process objects; retry those affected by an outage, and isolate the object that makes `process` raise."""
        try:
            outages = process(objects)
        except Exception as error:
            if _is_outage(error):
                raise self._retry_later(objects, error) from error
            logger.exception("%s failed on %s", self.name, count_noun(len(objects), "object"))
            self._isolate(objects, describe_error(error))
            return
        if outages and self.request.retries >= MAX_FETCH_RETRIES:
            outages = self.record_not_fetched(outages)
        if outages:
            raise self._retry_later([outage.item for outage in outages], outages[0].error)

    def _process_half(self, objects: list[ObjectCreated]) -> list[Outage]:
        """Process a half of a redelivered group, without the objects that have since been recorded as crashed."""
        crashed = self.crashed_keys(objects)
        return self.process([item for item in objects if item.key not in crashed])

    def _process_isolated(self, objects: list[ObjectCreated]) -> list[Outage]:
        """Process one object, unless too many workers have started but not finished it.

        An object that is recorded as crashed is not processed, since each further message about it could crash as many
        workers again. A redriven task is an exception.
        """
        (item,) = objects
        if not self.request.get(REASON) and self.crashed_keys(objects):
            return self.record_crashed(objects, "workers crashed on it before")  # for the model in use, too
        crashes = self._counting.crash_counts.begin(item.bucket, item.key)
        if crashes < MAX_CRASHES:
            try:
                return self.process(objects)
            finally:
                self._forget_start(item)
        reason = f"{crashes} workers crashed while processing only this"
        outages = self.record_crashed(objects, reason)  # otherwise each reconcile would send it again
        if not outages:
            self._publisher.dead_letter(self.name, objects, reason)
            self._forget_start(item)
        return outages

    def _forget_start(self, item: ObjectCreated) -> None:
        try:
            self._counting.crash_counts.end(item.bucket, item.key)
        except Exception as error:  # harmless: only many remaining notes dead-letter an object
            logger.warning("cannot note that %s crashed no worker: %s", item.key, error)

    def _isolate(self, objects: list[ObjectCreated], reason: str) -> None:
        """After an error, resend a group in halves; record a single object as crashed, and dead-letter it."""
        if len(objects) > 1:
            self._resend_halves(objects, redelivered=False)
            return
        try:
            outages = self.record_crashed(objects, reason)
        except Exception as error:
            if _is_outage(error):
                raise self._retry_later(objects, error) from error
            logger.exception("%s: cannot record that it failed on %r", self.name, objects)
            outages = []
        if outages:
            raise self._retry_later(objects, outages[0].error)
        with self._replace_message():
            self._publisher.dead_letter(self.name, objects, reason)

    def _resend_halves(self, objects: list[ObjectCreated], *, redelivered: bool) -> None:
        middle = len(objects) // 2
        with self._replace_message():
            for half in (objects[:middle], objects[middle:]):
                self._publisher.resend(self.name, half, redelivered=redelivered)

    @contextmanager
    def _replace_message(self) -> Iterator[None]:
        """Wraps a block that sends messages to replace the current one.

        If the broker refuses them, the current message is redelivered; Celery by itself would dead-letter it.
        """
        try:
            yield
        except Exception as error:
            logger.warning("%s: the broker accepts no message (%s); this one is redelivered", self.name, error)
            raise self.app.queues.tasks.rejection(error) from error

    def _retry_later(self, objects: list[ObjectCreated], error: Exception) -> Exception:
        self._counting.metrics.retried.inc()
        backoff = min(MAX_BACKOFF_S, self._retry_wait_s * 2 ** min(self.request.retries, _MAX_DOUBLINGS))
        # Jitter over half the backoff, so that tasks that failed together are not all retried together.
        with self._replace_message():
            retry: Exception = self.retry(
                args=[[as_json(item) for item in objects]],
                kwargs={},  # no longer part of a redelivered group, since this worker has survived
                exc=error,
                countdown=backoff * random.uniform(0.5, 1.0),  # noqa: S311
                throw=False,
            )
        return retry


def _is_outage(error: Exception) -> bool:
    """Return whether an error is an outage, not the fault of an object.

    In an outage, databases raise many kinds of errors: after a failover, for example, a database may be read-only. Only
    data that the database cannot store may be the fault of an object.
    """
    if isinstance(error, DataError | IntegrityError):
        return False
    return isinstance(error, DBAPIError | NoConnectionFree | EngineBroken | RecordsNotWritable)


class CountPhotos(_ObjectsTask):
    """Counts the photos and records the counts."""

    name = COUNT_PHOTOS

    def process(self, objects: list[ObjectCreated]) -> list[Outage]:
        return self._counting.count(objects)

    def record_crashed(self, objects: list[ObjectCreated], reason: str) -> list[Outage]:
        return self._counting.record_crashed_photos(objects, reason)

    def crashed_keys(self, objects: list[ObjectCreated]) -> set[str]:
        return self._counting.crashed_keys(objects, crashed_photos)

    def record_not_fetched(self, outages: list[Outage]) -> list[Outage]:
        return self._counting.record_fetch_failed_photos(outages)


class ReadMetadata(_ObjectsTask):
    """Reads the metadata files and records the expected quantities."""

    name = READ_METADATA

    def process(self, objects: list[ObjectCreated]) -> list[Outage]:
        return self._counting.read_metadata(objects)

    def record_crashed(self, objects: list[ObjectCreated], reason: str) -> list[Outage]:
        return self._counting.record_crashed_metadata(objects, reason)

    def crashed_keys(self, objects: list[ObjectCreated]) -> set[str]:
        return self._counting.crashed_keys(objects, partial(crashed_metadata, naming=self._counting.naming))

    def record_not_fetched(self, outages: list[Outage]) -> list[Outage]:
        return self._counting.record_fetch_failed_metadata(outages)


class Reconcile(Task):  # type: ignore[misc]  # Celery has no types
    """Sends the photos and metadata files of the bucket that have no record. Beat starts it every few minutes.

    It also computes new p-values for bins that were compared before the current calibration of their model was
    recorded.
    """

    name = RECONCILE
    ignore_result = True
    may_expire = True

    def __init__(self, counting: Counting, publisher: Publisher, settings: Settings) -> None:
        self._counting = counting
        self._publisher = publisher
        self._settings = settings
        self._last_event_messages = 0
        """Number of event messages that this worker had processed at the last run."""

    def run(self) -> None:
        """Celery's entry point."""
        metrics = self._counting.metrics
        metrics.note_periodic_step(self.name, PeriodicStep.START)
        backlog = self._publisher.backlog()
        if backlog > _MAX_BACKLOG:
            logger.info(
                "reconcile: %d tasks are waiting, which may be those of objects without a record; none are sent now",
                backlog,
            )
            metrics.note_periodic_step(self.name, PeriodicStep.SUCCESS)  # not late: waiting tasks have their own alert
            return
        # In an outage, tasks wait for their retries, and brokers do not report those as waiting messages. If each
        # reconcile sent their objects again, the objects would end up being counted many times.
        problems = HealthChecks(self._counting.probes()).problems()
        if problems:
            logger.warning("reconcile: no photo can be counted now (%s)", "; ".join(problems.values()))
            return
        if ranked := update_p_values(self._counting.database):
            logger.info("reconcile: new p-values for %s, by the present calibration", count_noun(ranked, "bin"))
        result = send_unrecorded(self._counting.objects, self._counting.database, self._settings, self._publisher)
        no_events = metrics.event_messages <= self._last_event_messages
        self._last_event_messages = metrics.event_messages
        hint = ""
        if result.objects and no_events and self._settings.event_source is not EventSource.NONE:
            # Without events, everything still works, only later, so nobody would notice.
            hint = (
                "; this worker has received no event message since the last reconcile: if the bucket should send its"
                " events, see docs/servers.md, 'When events do not come'"
            )
        logger.info("reconcile: %s%s", result, hint)
        metrics.note_periodic_step(self.name, PeriodicStep.SUCCESS)


def parse_object(item: dict[str, Any]) -> ObjectCreated:
    """Parse an object from the argument of a task, as `as_json` makes it. An invalid argument may raise any error."""
    event_time = datetime.fromisoformat(item["time"]) if item["time"] else None
    return ObjectCreated(item["bucket"], item["key"], event_time, item.get("etag", ""))  # earlier releases sent no ETag
