"""The Celery tasks: thin, since Celery only carries the work. Each takes objects as JSON and gives nothing back."""

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

from binwatch.events import Created
from binwatch.records.current import rank
from binwatch.records.queries import crashed_metadata, crashed_photos
from binwatch.records.store import RecordsBroken
from binwatch.settings import EventSource, Settings
from worker.counting import Counting, Outage
from worker.health import Health
from worker.pipeline import EngineBroken
from worker.reconcile import Sent, send_unrecorded
from worker.sending import COUNT_PHOTOS, READ_METADATA, REASON, SENT_AT, Sender, as_json

MAX_WAIT_S = 60.0
"""Longest wait before the next try. Well below the visibility time-out of a task's message."""
MAX_DEATHS = 10
"""An object that was alone in a worker's hand when so many of them died is taken for the cause and set aside."""
_SUSPECTS = threading.Lock()
"""One lone suspect at a time in a process, so that none is taken for the cause of a death that is another's.

Groups do not wait for it: after a broker has crashed, all that it had may come as suspect, and must be done quickly. A
group that kills is halved eight times at most until it stands alone, which is fewer than MAX_DEATHS.
"""
MAX_RETRIES = 10
"""Retries (over some six minutes) of an object that S3 fails on, though it answers: then the object is to blame."""
_MAX_DOUBLINGS = 20  # an outage of days must not end in a number too large for a float


_Objects = list[dict[str, Any]]
"""Objects as a task carries them."""

RECONCILE = "binwatch.reconcile"
_BUSY = 50
"""With more tasks than this in the queue, looking for photos without a record would mostly find theirs."""

logger = logging.getLogger(__name__)


class _ObjectsTask(Task):  # type: ignore[misc]  # Celery has no types
    """Does something with objects. What an outage keeps back is tried again, with the rest already recorded.

    An object that makes the task raise, or the whole process die, must not stop the others: the group is halved until
    the culprit stands alone, and then it is set aside in the dead-letter queue with the reason.

    A task that comes again is no proof that a worker died of it: brokers also send again what a worker had only taken
    in advance, or was holding back, when it was stopped or its connection broke. So an object under suspicion is noted
    in the records before it is touched, and only what is still noted there is counted as a death.
    """

    acks_late = True
    acks_on_failure_or_timeout = False
    reject_on_worker_lost = True
    max_retries = None
    ignore_result = True
    name: ClassVar[str]

    def __init__(self, counting: Counting, sender: Sender, retry_wait_s: float) -> None:
        self._counting = counting
        self._sender = sender
        self._retry_wait_s = retry_wait_s

    @abstractmethod
    def give_up(self, objects: list[Created], why: str) -> list[Outage]:
        """Record that workers die of them, or tasks fail; return what an outage kept back."""

    @abstractmethod
    def given_up(self, objects: list[Created]) -> set[str]:
        """Keys of those that were given up as they are now."""

    @abstractmethod
    def work(self, objects: list[Created]) -> list[Outage]:
        """Do it; return what an outage kept back."""

    @abstractmethod
    def fail(self, outages: list[Outage]) -> list[Outage]:
        """Record what could not be fetched so often; return what an outage keeps back."""

    def check(self, objects: _Objects, suspect: bool = False) -> None:
        """Raise unless `run` can be called with these arguments, which anyone may have sent."""
        if not isinstance(objects, list) or not objects:
            raise ValueError("objects to work on are missing")
        for item in map(_parse, objects):
            if not all(isinstance(text, str) for text in (item.bucket, item.key, item.etag)):
                raise TypeError("bucket, key and ETag must be texts")

    def run(self, objects: _Objects, suspect: bool = False) -> None:
        """Celery's entry point. `suspect`: a worker may have died while it had these objects in hand."""
        self._note_age()
        with self._counting.idle.task():
            self._run_as_it_came(objects, suspect)

    def _run_as_it_came(self, objects: _Objects, suspect: bool) -> None:
        came_again = self.app.queues.tasks.is_redelivered(self.request)
        if came_again and len(objects) > 1:
            self._halve(objects, suspect=True)
        elif (came_again or suspect) and len(objects) == 1:
            with _SUSPECTS:
                self._run(objects, self._try_suspect)
        elif suspect:
            self._run(objects, self._work_on_suspects)
        else:
            self._run(objects, self._work)

    def _note_age(self) -> None:
        sent_at = self.request.get(SENT_AT)
        if isinstance(sent_at, int | float) and not self.request.retries:  # a retry has waited for an outage to end
            self._counting.metrics.oldest("tasks", time.time() - sent_at)

    def _run(self, objects: _Objects, work: Callable[[_Objects], list[Outage]]) -> None:
        try:
            outages = work(objects)
        except Exception as error:
            if _is_outage(error):
                raise self._again(objects, error) from error
            logger.exception("%s failed on %d objects", self.name, len(objects))
            self._after_error(objects, f"{type(error).__name__}: {error}")
            return
        if outages and self.request.retries >= MAX_RETRIES:
            outages = self.fail(outages)
        if outages:
            raise self._again([as_json(outage.item) for outage in outages], outages[0].error)

    def _work(self, objects: _Objects) -> list[Outage]:
        return self.work([_parse(item) for item in objects])

    def _work_on_suspects(self, objects: _Objects) -> list[Outage]:
        """Work on a part of a group that workers may have died of, without those that were given up since."""
        given_up = self.given_up([_parse(item) for item in objects])
        return self._work([item for item in objects if item["key"] not in given_up])

    def _try_suspect(self, objects: _Objects) -> list[Outage]:
        """Work on one object, unless too many workers have begun it and never came to the end.

        Other messages may announce the same object, which must not cost as many workers once more. One that a person
        put back starts anew.
        """
        suspect = _parse(objects[0])
        if not self.request.get(REASON) and self.given_up([suspect]):
            return self.give_up([suspect], "workers died of it before")  # by this model's name, too
        deaths = self._counting.trials.begin(suspect.bucket, suspect.key)
        if deaths < MAX_DEATHS:
            try:
                return self._work(objects)
            finally:
                self._end_trial(suspect)
        why = f"{deaths} workers died while they had only this in hand"
        outages = self.give_up([suspect], why)  # else each reconcile would send it again
        if not outages:
            self._sender.dead_letter(self.name, objects, why)
            self._end_trial(suspect)
        return outages

    def _end_trial(self, suspect: Created) -> None:
        try:
            self._counting.trials.end(suspect.bucket, suspect.key)
        except Exception as error:  # what is left behind is one of many tries
            logger.warning("cannot note that %s was no worker's death: %s", suspect.key, error)

    def _after_error(self, objects: _Objects, reason: str) -> None:
        if len(objects) > 1:
            self._halve(objects, suspect=False)
            return
        try:
            outages = self.give_up([_parse(item) for item in objects], reason)
        except Exception as error:
            if _is_outage(error):
                raise self._again(objects, error) from error
            logger.exception("%s: cannot record that it failed on %r", self.name, objects)
            outages = []
        if outages:
            raise self._again(objects, outages[0].error)
        with self._in_its_place():
            self._sender.dead_letter(self.name, objects, reason)

    def _halve(self, objects: _Objects, *, suspect: bool) -> None:
        half = len(objects) // 2
        with self._in_its_place():
            for part in (objects[:half], objects[half:]):
                self._sender.resend(self.name, part, suspect=suspect)

    @contextmanager
    def _in_its_place(self) -> Iterator[None]:
        """Something is sent in the message's place. If the broker refuses that, the message must be redelivered:
        Celery would have it dead-lettered."""
        try:
            yield
        except Exception as error:
            logger.warning("%s: the broker accepts no message (%s); this one is redelivered", self.name, error)
            raise self.app.queues.tasks.rejection(error) from error

    def _again(self, objects: _Objects, error: Exception) -> Exception:
        self._counting.metrics.retried()
        wait = min(MAX_WAIT_S, self._retry_wait_s * 2 ** min(self.request.retries, _MAX_DOUBLINGS))
        # Spread over half the wait: tasks that failed together must not all come back together.
        with self._in_its_place():
            retry: Exception = self.retry(
                args=[objects],
                kwargs={},  # no suspect any more: this worker lives
                exc=error,
                countdown=wait * random.uniform(0.5, 1.0),  # noqa: S311
                throw=False,
            )
        return retry


def _is_outage(error: Exception) -> bool:
    """Whether no object is to blame. A database says more than that it is gone: after a failover it may be read-only,
    and a permission may be lacking. Only what it cannot hold may be an object's fault."""
    broken = isinstance(error, DBAPIError | NoConnectionFree | EngineBroken | RecordsBroken)
    return broken and not isinstance(error, DataError | IntegrityError)


class CountPhotos(_ObjectsTask):
    """Counts the photos and records the counts."""

    name = COUNT_PHOTOS

    def work(self, objects: list[Created]) -> list[Outage]:
        """Count; return what an outage kept back."""
        return self._counting.count(objects)

    def give_up(self, objects: list[Created], why: str) -> list[Outage]:
        """Record photos as crashed; return what an outage kept back."""
        return self._counting.crashed_photos(objects, why)

    def given_up(self, objects: list[Created]) -> set[str]:
        """Keys of the photos that crashed as they are now."""
        return self._counting.known_to_crash(objects, crashed_photos)

    def fail(self, outages: list[Outage]) -> list[Outage]:
        """Record what could not be fetched so often; return what an outage keeps back."""
        return self._counting.fail_photos(outages)


class ReadMetadata(_ObjectsTask):
    """Reads the metadata files and records the expected quantities."""

    name = READ_METADATA

    def work(self, objects: list[Created]) -> list[Outage]:
        """Read; return what an outage kept back."""
        return self._counting.read_metadata(objects)

    def give_up(self, objects: list[Created], why: str) -> list[Outage]:
        """Record metadata files as crashed; return what an outage kept back."""
        return self._counting.crashed_metadata(objects, why)

    def given_up(self, objects: list[Created]) -> set[str]:
        """Keys of the files that crashed as they are now."""
        return self._counting.known_to_crash(objects, partial(crashed_metadata, naming=self._counting.naming))

    def fail(self, outages: list[Outage]) -> list[Outage]:
        """Record what could not be fetched so often; return what an outage keeps back."""
        return self._counting.fail_metadata(outages)


class Reconcile(Task):  # type: ignore[misc]  # Celery has no types
    """Sends the photos and metadata files of the bucket that have no record. Beat starts it now and then.

    It also gives p-values to bins that were compared before their model's calibration was recorded.
    """

    name = RECONCILE
    ignore_result = True
    may_expire = True

    def __init__(self, counting: Counting, sender: Sender, settings: Settings) -> None:
        self._counting = counting
        self._sender = sender
        self._settings = settings
        self._announced = 0
        """Event messages that this worker had handled by the last look."""

    def run(self) -> None:
        """Celery's entry point."""
        backlog = self._sender.backlog()
        if backlog > _BUSY:
            logger.info("reconcile: %d tasks are waiting; what has no record may be among them, so not now", backlog)
            return
        # What cannot be counted now is held back until its next try, which no broker counts among what waits. Sent
        # again by each reconcile of a long outage, it would all be counted as many times in the end.
        problems = Health(self._counting.probes()).problems()
        if problems:
            logger.warning("reconcile: nothing could be counted now (%s)", "; ".join(problems.values()))
            return
        if ranked := rank(self._counting.database):
            logger.info("reconcile: %d bins have got p-values", ranked)
        sent = send_unrecorded(self._counting.objects, self._counting.database, self._settings, self._sender)
        logger.info("reconcile: %s%s", sent, self._hint(sent))

    def _hint(self, sent: Sent) -> str:
        """Where events do not come, all else works, only later: so it would go unnoticed."""
        before, self._announced = self._announced, self._counting.metrics.event_messages
        if not sent.objects or self._announced > before or self._settings.event_source is EventSource.NONE:
            return ""
        return (
            "; no event message has come to this worker since its last look: if the bucket is to send its events, see"
            " docs/servers.md, 'When events do not come'"
        )


def _parse(item: dict[str, Any]) -> Created:
    time = item["time"]
    moment = datetime.fromisoformat(time) if time else None
    return Created(item["bucket"], item["key"], moment, item.get("etag", ""))  # releases before sent no ETag
