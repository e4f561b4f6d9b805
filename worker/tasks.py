"""The Celery tasks, thin wrappers of worker.counting. Each takes objects as JSON and returns nothing."""

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
"""Well below the visibility timeout of a task's message."""
MAX_CRASHES = 10
"""Crashes after which an object that was alone in its task is considered the cause, and dead-lettered."""
_ONE_AT_A_TIME = threading.Lock()
"""A process handles one isolated redelivered object at a time, so that no object is blamed for another's crash.

Groups do not wait for the lock: after a crash of the broker, all groups in flight may be redelivered, and must be
processed quickly. A group with a poison message is halved at most eight times, which is less than MAX_CRASHES.
"""
MAX_RETRIES = 10
"""Retries, over about six minutes, of an object that cannot be fetched although S3 answers. Then it is recorded as
failed."""
_MAX_DOUBLINGS = 20  # a longer exponent would overflow a float in an outage of days

_Objects = list[dict[str, Any]]
"""Objects as arguments of a task."""
_Work = Callable[[list[ObjectCreated]], list[Outage]]
"""Processes objects; returns those affected by an outage, which are retried."""

RECONCILE = "binwatch.reconcile"
_BUSY = 50
"""With more waiting tasks, reconcile would mostly find their objects, and does not run."""

logger = logging.getLogger(__name__)


class _ObjectsTask(Task):  # type: ignore[misc]  # Celery has no types
    """Processes objects. Those affected by an outage are retried with backoff; the others are recorded.

    An object that makes the task raise, or crashes the process, must not stop the others: the group is halved until
    that object is isolated, and then it is dead-lettered with the reason.

    A redelivery does not prove a crash: brokers also redeliver tasks that a worker had only prefetched, or was delaying
    for a retry, when it was stopped or its connection broke. So an isolated redelivered object is noted in the records
    before it is processed, and only a note that remains counts as a crash.
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
        """Process objects; return those affected by an outage."""

    @abstractmethod
    def record_crashed(self, objects: list[ObjectCreated], why: str) -> list[Outage]:
        """Record that objects crash workers or tasks; return those affected by an outage."""

    @abstractmethod
    def recorded_as_crashed(self, objects: list[ObjectCreated]) -> set[str]:
        """Keys of the objects that are recorded as crashed and unchanged since."""

    @abstractmethod
    def record_not_fetched(self, outages: list[Outage]) -> list[Outage]:
        """Record objects that could not be fetched after all retries; return those affected by an outage."""

    def check(self, objects: _Objects, redelivered: bool = False) -> None:
        """Raise unless `run` can be called with these arguments, which anyone may have sent."""
        if not isinstance(objects, list) or not objects:
            raise ValueError("the list of objects is missing")
        for item in map(_parse, objects):
            if not all(isinstance(text, str) for text in (item.bucket, item.key, item.etag)):
                raise TypeError("bucket, key and ETag must be strings")

    def run(self, objects: _Objects, redelivered: bool = False) -> None:
        """Celery's entry point. `redelivered`: the objects come from a group whose message was redelivered."""
        sent_at = self.request.get(SENT_AT)
        if isinstance(sent_at, int | float) and not self.request.retries:  # the age of a retry includes the outage
            self._counting.metrics.oldest("tasks", time.time() - sent_at)
        with self._counting.idle.task():
            self._run_delivery([_parse(item) for item in objects], redelivered)

    def _run_delivery(self, objects: list[ObjectCreated], of_redelivered: bool) -> None:
        redelivered = self.app.queues.tasks.is_redelivered(self.request)
        if redelivered and len(objects) > 1:
            self._halve(objects, redelivered=True)
        elif (redelivered or of_redelivered) and len(objects) == 1:
            with _ONE_AT_A_TIME:
                self._run(objects, self._process_isolated)
        elif of_redelivered:
            self._run(objects, self._process_part)
        else:
            self._run(objects, self.process)

    def _run(self, objects: list[ObjectCreated], work: _Work) -> None:
        try:
            outages = work(objects)
        except Exception as error:
            if _is_outage(error):
                raise self._retry_later(objects, error) from error
            logger.exception("%s failed on %s", self.name, count_noun(len(objects), "object"))
            self._after_error(objects, describe_error(error))
            return
        if outages and self.request.retries >= MAX_RETRIES:
            outages = self.record_not_fetched(outages)
        if outages:
            raise self._retry_later([outage.item for outage in outages], outages[0].error)

    def _process_part(self, objects: list[ObjectCreated]) -> list[Outage]:
        """Process a part of a redelivered group, without the objects that were recorded as crashed meanwhile."""
        crashed = self.recorded_as_crashed(objects)
        return self.process([item for item in objects if item.key not in crashed])

    def _process_isolated(self, objects: list[ObjectCreated]) -> list[Outage]:
        """Process one object, unless too many workers have started and not finished it.

        If other messages announce the same object, it must not crash as many workers again. A redriven one is retried.
        """
        (item,) = objects
        if not self.request.get(REASON) and self.recorded_as_crashed(objects):
            return self.record_crashed(objects, "workers crashed on it before")  # recorded for this model, too
        crashes = self._counting.crash_counts.begin(item.bucket, item.key)
        if crashes < MAX_CRASHES:
            try:
                return self.process(objects)
            finally:
                self._end_trial(item)
        why = f"{crashes} workers crashed while processing only this"
        outages = self.record_crashed(objects, why)  # otherwise each reconcile would send it again
        if not outages:
            self._publisher.dead_letter(self.name, objects, why)
            self._end_trial(item)
        return outages

    def _end_trial(self, item: ObjectCreated) -> None:
        try:
            self._counting.crash_counts.end(item.bucket, item.key)
        except Exception as error:  # harmless: many notes must remain before it is dead-lettered
            logger.warning("cannot note that %s crashed no worker: %s", item.key, error)

    def _after_error(self, objects: list[ObjectCreated], reason: str) -> None:
        if len(objects) > 1:
            self._halve(objects, redelivered=False)
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
        with self._replacing():
            self._publisher.dead_letter(self.name, objects, reason)

    def _halve(self, objects: list[ObjectCreated], *, redelivered: bool) -> None:
        half = len(objects) // 2
        with self._replacing():
            for part in (objects[:half], objects[half:]):
                self._publisher.resend(self.name, part, redelivered=redelivered)

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        """In the block, messages are sent that replace this one. If the broker refuses them, this one is redelivered,
        where Celery would dead-letter it."""
        try:
            yield
        except Exception as error:
            logger.warning("%s: the broker accepts no message (%s); this one is redelivered", self.name, error)
            raise self.app.queues.tasks.rejection(error) from error

    def _retry_later(self, objects: list[ObjectCreated], error: Exception) -> Exception:
        self._counting.metrics.retried.inc()
        backoff = min(MAX_BACKOFF_S, self._retry_wait_s * 2 ** min(self.request.retries, _MAX_DOUBLINGS))
        # Jitter over half the backoff: tasks that failed together must not all be retried together.
        with self._replacing():
            retry: Exception = self.retry(
                args=[[as_json(item) for item in objects]],
                kwargs={},  # no longer part of a redelivered group, since this worker has survived
                exc=error,
                countdown=backoff * random.uniform(0.5, 1.0),  # noqa: S311
                throw=False,
            )
        return retry


def _is_outage(error: Exception) -> bool:
    """Whether the error is not an object's fault. Databases raise many errors in an outage: after a failover, for
    example, one may be read-only. Only data that the database cannot store may be an object's fault."""
    broken = isinstance(error, DBAPIError | NoConnectionFree | EngineBroken | RecordsNotWritable)
    return broken and not isinstance(error, DataError | IntegrityError)


class CountPhotos(_ObjectsTask):
    """Counts the photos and records the counts."""

    name = COUNT_PHOTOS

    def process(self, objects: list[ObjectCreated]) -> list[Outage]:
        return self._counting.count(objects)

    def record_crashed(self, objects: list[ObjectCreated], why: str) -> list[Outage]:
        return self._counting.crashed_photos(objects, why)

    def recorded_as_crashed(self, objects: list[ObjectCreated]) -> set[str]:
        return self._counting.known_to_crash(objects, crashed_photos)

    def record_not_fetched(self, outages: list[Outage]) -> list[Outage]:
        return self._counting.fail_photos(outages)


class ReadMetadata(_ObjectsTask):
    """Reads the metadata files and records the expected quantities."""

    name = READ_METADATA

    def process(self, objects: list[ObjectCreated]) -> list[Outage]:
        return self._counting.read_metadata(objects)

    def record_crashed(self, objects: list[ObjectCreated], why: str) -> list[Outage]:
        return self._counting.crashed_metadata(objects, why)

    def recorded_as_crashed(self, objects: list[ObjectCreated]) -> set[str]:
        return self._counting.known_to_crash(objects, partial(crashed_metadata, naming=self._counting.naming))

    def record_not_fetched(self, outages: list[Outage]) -> list[Outage]:
        return self._counting.fail_metadata(outages)


class Reconcile(Task):  # type: ignore[misc]  # Celery has no types
    """Sends the photos and metadata files of the bucket that have no record. Beat starts it every few minutes.

    It also computes new p-values for bins that were compared before their model's present calibration was recorded.
    """

    name = RECONCILE
    ignore_result = True
    may_expire = True

    def __init__(self, counting: Counting, publisher: Publisher, settings: Settings) -> None:
        self._counting = counting
        self._publisher = publisher
        self._settings = settings
        self._announced = 0
        """Event messages that this worker had processed at the last run."""

    def run(self) -> None:
        """Celery's entry point."""
        metrics = self._counting.metrics
        metrics.periodic(self.name, PeriodicStep.START)
        backlog = self._publisher.backlog()
        if backlog > _BUSY:
            logger.info(
                "reconcile: %d tasks are waiting, which may be those of objects without a record; none are sent now",
                backlog,
            )
            metrics.periodic(self.name, PeriodicStep.SUCCESS)  # not late: another alert is for waiting tasks
            return
        # In an outage, tasks wait for their retries, which brokers do not count as waiting messages. If each reconcile
        # sent their objects again, they would be counted many times in the end.
        problems = HealthChecks(self._counting.probes()).problems()
        if problems:
            logger.warning("reconcile: no photo can be counted now (%s)", "; ".join(problems.values()))
            return
        if ranked := update_p_values(self._counting.database):
            logger.info("reconcile: new p-values for %s, by the present calibration", count_noun(ranked, "bin"))
        sent = send_unrecorded(self._counting.objects, self._counting.database, self._settings, self._publisher)
        before, self._announced = self._announced, metrics.event_messages
        hint = ""
        if sent.objects and self._announced <= before and self._settings.event_source is not EventSource.NONE:
            # Without events everything still works, only later, so it would go unnoticed.
            hint = (
                "; this worker has received no event message since the last reconcile: if the bucket should send its"
                " events, see docs/servers.md, 'When events do not come'"
            )
        logger.info("reconcile: %s%s", sent, hint)
        metrics.periodic(self.name, PeriodicStep.SUCCESS)


def _parse(item: dict[str, Any]) -> ObjectCreated:
    time = item["time"]
    moment = datetime.fromisoformat(time) if time else None
    return ObjectCreated(item["bucket"], item["key"], moment, item.get("etag", ""))  # earlier releases sent no ETag
