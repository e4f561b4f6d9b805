"""Objects in S3 → records: the work behind the Celery tasks, without Celery."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy import Engine as Database
from sqlalchemy.exc import SQLAlchemyError

from binwatch.bundle import Card
from binwatch.errors import (
    BinwatchError,
    MetadataError,
    MetadataReason,
    ObjectsError,
    PhotoError,
    Reason,
    describe_error,
)
from binwatch.events import ObjectCreated
from binwatch.image import Photo
from binwatch.metadata import expected_quantity, parse_articles
from binwatch.objects import FetchedObject, ObjectRefused, Objects
from binwatch.photo_stats import PhotoStats, photo_stats
from binwatch.records.crash_counts import CrashCounts
from binwatch.records.engine import connect
from binwatch.records.problems import database_outage, explain, lacks_permission
from binwatch.records.queries import recorded_keys
from binwatch.records.schema import check_schema
from binwatch.records.store import NewCount, NewExpectation, RecordsNotWritable, Store
from binwatch.settings import EventSource, Settings
from worker.engine import Engine
from worker.metrics import PROMISED_S, InstrumentedEngine, PhotoStage, WorkerMetrics
from worker.model_manager import ModelKeeper
from worker.new_counts import new_count
from worker.pipeline import Prediction, load_ahead, predict
from worker.starvation import StarvationCheck

logger = logging.getLogger(__name__)

_LONG_AGO = datetime.fromtimestamp(0, UTC)
"""Time of an object that cannot be fetched and whose event has no time: before all others."""

_WATCHED = {
    "connect_timeout": 10,
    "tcp_user_timeout": 60_000,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""Options with which libpq detects within a minute that a server has vanished, as in a failover. By the kernel's
defaults, tasks would wait for it for a quarter of an hour, or for two hours."""


@dataclass(frozen=True, slots=True)
class Outage:
    """An object that could not be fetched because of an outage; it must be tried again."""

    item: ObjectCreated
    error: ObjectsError


@dataclass(frozen=True, slots=True)
class LoadedPhoto:
    """A fetched and decoded photo, or the error that prevented it."""

    item: ObjectCreated
    photo: Photo | None = None
    stats: PhotoStats | None = None
    etag: str = ""
    version_id: str | None = None
    bytes: int | None = None
    modified: datetime | None = None
    error: PhotoError | ObjectsError | None = None


Recorded = Callable[[Connection, str, Iterable[str]], set[tuple[str, str]]]
"""(connection, bucket, keys) → keys and ETags of those with a certain record."""


class Counting:
    """Counts photos and reads expected quantities. One per process; its methods may run on several threads."""

    def __init__(self, settings: Settings, metrics: WorkerMetrics | None = None) -> None:
        self._settings = settings
        self.metrics = metrics or WorkerMetrics()
        self.idle = StarvationCheck()
        self.database = open_records(settings)
        self.objects = Objects(settings)
        self.naming = settings.bin_naming
        self._store = Store(self.database, self.naming, settings.slicing)
        self.models = ModelKeeper(settings, self.objects, self.metrics, self._note)
        self.crash_counts = CrashCounts(self.database)
        self._pool = ThreadPoolExecutor(settings.fetch_threads, thread_name_prefix="fetch")

    def count(self, photos: Sequence[ObjectCreated]) -> list[Outage]:
        """Fetch, decode, infer and record. Returns the photos affected by an outage of S3; all others are recorded."""
        engine = self.models.engine  # one for the whole group, even if another is promoted meanwhile
        loaded = load_ahead(self._pool, photos, partial(self._load, engine.card), ahead=len(photos))
        outages: list[Outage] = []
        counts: list[NewCount] = []
        for item, answer in predict(InstrumentedEngine(engine, self.metrics), loaded, self._settings.batch_size):
            if isinstance(item.error, ObjectsError):
                outages.append(Outage(item.item, item.error))
            else:
                counts.append(_record(engine, item, answer))
        with self._recording():
            waited = self._add(engine, counts)
        self._measure(counts, waited)
        return outages

    def read_metadata(self, files: Sequence[ObjectCreated]) -> list[Outage]:
        """Fetch, parse and record expected quantities. Returns the files affected by an outage of S3."""
        outages: list[Outage] = []
        expectations: list[NewExpectation] = []
        for read in self._pool.map(self._read, files):
            if isinstance(read, Outage):
                outages.append(read)
            else:
                expectations.append(read)
        with self._recording():
            self._store.add_expectations(expectations)
        for expectation in expectations:
            self.metrics.metadata(expectation.reason)
        return outages

    def fail_photos(self, outages: Sequence[Outage]) -> list[Outage]:
        """Record photos that cannot be fetched as failed. If their bucket does not answer, returns them all instead."""
        if self._is_out(outages):
            return list(outages)
        engine = self.models.engine
        counts = [
            _record(engine, LoadedPhoto(one.item, etag=one.item.etag, error=_gives_up(one)), None) for one in outages
        ]
        self._measure(counts, self._add(engine, counts))
        return []

    def fail_metadata(self, outages: Sequence[Outage]) -> list[Outage]:
        """Like `fail_photos`, for metadata files."""
        if self._is_out(outages):
            return list(outages)
        failed = [
            replace(self._unread(one.item), reason=MetadataReason.FETCH_FAILED, detail=str(_gives_up(one)))
            for one in outages
        ]
        self._store.add_expectations(failed)
        for _ in failed:
            self.metrics.metadata(MetadataReason.FETCH_FAILED)
        return []

    def crashed_photos(self, photos: Sequence[ObjectCreated], why: str) -> list[Outage]:
        """Record photos that crashed workers or made tasks raise. Returns those affected by an outage of S3."""
        engine = self.models.engine
        found = [self._stored(item, why) for item in photos]
        counts = [_record(engine, one, None) for one in found if isinstance(one, LoadedPhoto)]
        self._measure(counts, self._add(engine, counts))
        return [one for one in found if isinstance(one, Outage)]

    def crashed_metadata(self, files: Sequence[ObjectCreated], why: str) -> list[Outage]:
        """Like `crashed_photos`, for metadata files."""
        found = [self._stored(item, why) for item in files]
        failed = [self._crashed_file(one) for one in found if isinstance(one, LoadedPhoto)]
        self._store.add_expectations(failed)
        for one in failed:
            self.metrics.metadata(one.reason)
        return [one for one in found if isinstance(one, Outage)]

    def known_to_crash(self, objects: Sequence[ObjectCreated], recorded: Recorded) -> set[str]:
        """Keys of the objects that are `recorded` as crashed, and have not been replaced since."""
        keys: set[str] = set()
        with self.database.connect() as connection:
            for bucket in {item.bucket for item in objects}:
                of_bucket = {item.key: item for item in objects if item.bucket == bucket}
                for key, etag in recorded(connection, bucket, of_bucket):
                    if key in of_bucket and self._is_still(of_bucket[key], etag):
                        keys.add(key)
        return keys

    def _is_still(self, item: ObjectCreated, etag: str) -> bool:
        try:
            return etag in (item.etag, self.objects.head(item.bucket, item.key).etag)
        except BinwatchError:
            return False

    def _stored(self, item: ObjectCreated, why: str) -> LoadedPhoto | Outage:
        """The upload that crashed, without its bytes."""
        error = PhotoError(Reason.CRASHED, f"{why}; keep a copy, report it, and upload the photo again")
        try:
            head = self.objects.head(item.bucket, item.key)
        except ObjectRefused:
            return LoadedPhoto(item, etag=item.etag, error=error)
        except ObjectsError as outage:
            return Outage(item, outage)
        etag = item.etag if item.etag and item.time == head.modified else head.etag
        return LoadedPhoto(item, etag=etag, version_id=head.version_id, modified=head.modified, error=error)

    def _is_out(self, outages: Sequence[Outage]) -> bool:
        """Whether the bucket of one of the objects does not answer."""
        try:
            for bucket in {one.item.bucket for one in outages}:
                self.objects.check(bucket)
        except BinwatchError:
            return True
        return False

    def probes(self) -> dict[str, Callable[[], object]]:
        """Health checks of what counting needs: name → function that raises if it does not work now."""
        return {
            "records": self._check_records,
            "objects": lambda: self.objects.check(self._settings.bucket),
            "model": self.models.check,
        }

    def close(self) -> None:
        """Stop all threads."""
        self.models.stop()
        self._pool.shutdown()

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Raise RecordsNotWritable instead of another error if the records cannot be written: no object is to blame."""
        try:
            with self.metrics.timed(PhotoStage.RECORD):
                yield
        except Exception as error:
            try:
                self._check_records()
            except Exception as problem:
                raise RecordsNotWritable(describe_error(problem)) from error
            if isinstance(error, SQLAlchemyError) and lacks_permission(error):
                raise RecordsNotWritable(explain(error, self.database)) from error
            raise

    def note_model(self) -> None:
        """Record the model in use before its first photo, so that its metrics start at 0."""
        try:
            self._note(self.models.engine.card)
        except SQLAlchemyError as error:  # the first photo records it, and the health check reports the fault
            logger.warning("model: cannot be added to the records: %s", explain(error, self.database))

    def _note(self, card: Card) -> datetime:
        """Record a model in use, unless it is recorded; returns the time when it was first recorded."""
        self._store.use_model(card.version, card.calibration)
        return self._store.model_first_used_at(card.version)

    def _check_records(self) -> None:
        try:
            check_schema(self.database)
            self._store.check()
        except SQLAlchemyError as error:
            raise database_outage(error, self.database) from error

    def _load(self, card: Card, item: ObjectCreated) -> LoadedPhoto:
        try:
            with self.metrics.timed(PhotoStage.FETCH):
                fetched = self.objects.fetch(item.bucket, item.key, max_bytes=self._settings.max_photo_bytes)
        except ObjectRefused as error:
            why = PhotoError(Reason(error.reason), str(error))
            return LoadedPhoto(item, etag=error.etag or item.etag, modified=error.modified, error=why)
        except ObjectsError as error:
            return LoadedPhoto(item, error=error)
        # Without the bytes, or a waiting group would hold all its photos twice.
        loaded = LoadedPhoto(
            item,
            etag=_etag(item, fetched),
            version_id=fetched.version_id,
            bytes=len(fetched.data),
            modified=fetched.modified,
        )
        try:
            with self.metrics.timed(PhotoStage.DECODE):
                photo = card.load_photo(fetched.data, self._settings.limits)
        except PhotoError as error:
            return replace(loaded, error=error)
        return replace(loaded, photo=photo, stats=photo_stats(photo.pixels))

    def _add(self, engine: Engine, counts: Sequence[NewCount]) -> list[NewCount]:
        """Record counts and failures. Returns those whose age is the wait for a worker (see `_waited`)."""
        self._store.use_model(engine.card.version, engine.card.calibration)
        waited = self._waited(counts)
        self._store.add_counts(counts)
        return waited

    def _waited(self, counts: Sequence[NewCount]) -> list[NewCount]:
        """The counts of photos that were stored since Binwatch has been counting, and have no record yet.

        Only their age is the time that they waited to be counted. That excludes photos that existed before Binwatch,
        photos that another model has counted, photos that could not be fetched before, and redelivered ones. Without
        an event source, a schedule determines when photos are counted, so none are returned.
        """
        if self._settings.event_source is EventSource.NONE:
            return []
        since = self._store.first_model_used_at().replace(microsecond=0)  # S3 has whole seconds, too
        new = [count for count in counts if count.modified_at >= since]
        promised = datetime.now(UTC) - timedelta(seconds=PROMISED_S)
        recorded = self._recorded([count for count in new if count.modified_at < promised])
        return [count for count in new if (count.bucket, count.key) not in recorded]

    def _recorded(self, counts: Sequence[NewCount]) -> set[tuple[str, str]]:
        """Bucket and key of the photos that have a record of any model."""
        found: set[tuple[str, str]] = set()
        for bucket in {count.bucket for count in counts}:
            photos = [ObjectCreated(bucket, one.key, one.modified_at) for one in counts if one.bucket == bucket]
            with self.database.connect() as connection:
                found |= {(bucket, key) for key in recorded_keys(connection, bucket, photos, naming=self.naming)}
        return found

    def _measure(self, counts: Sequence[NewCount], waited: Sequence[NewCount]) -> None:
        now = datetime.now(UTC)
        for count in waited:
            self.metrics.waited((now - count.modified_at).total_seconds())
        for count in counts:
            self.metrics.photo(count.reason)
            if count.reason is not None:
                about = {"bin": self.naming(count.key), "key": count.key}
                logger.warning("photo failed: %s", count.detail, extra=about)

    def _unread(self, item: ObjectCreated) -> NewExpectation:
        """The record of a metadata file as far as it is known before fetching."""
        bin_id = self.naming(item.key)
        return NewExpectation(
            bucket=item.bucket, bin_id=bin_id, source=item.key, etag=item.etag, modified_at=_announced(item)
        )

    def _crashed_file(self, file: LoadedPhoto) -> NewExpectation:
        modified, why = file.modified or _announced(file.item), str(file.error)
        read = self._unread(file.item)
        return replace(read, etag=file.etag, modified_at=modified, reason=MetadataReason.CRASHED, detail=why)

    def _read(self, item: ObjectCreated) -> NewExpectation | Outage:
        read = self._unread(item)
        try:
            fetched = self.objects.fetch(item.bucket, item.key, max_bytes=self._settings.max_metadata_bytes)
        except ObjectRefused as error:
            modified = error.modified or read.modified_at
            why = MetadataReason(error.reason)
            return replace(read, etag=error.etag or item.etag, modified_at=modified, reason=why, detail=str(error))
        except ObjectsError as error:
            return Outage(item, error)
        read = replace(read, etag=_etag(item, fetched), modified_at=fetched.modified)
        try:
            return replace(read, quantity=expected_quantity(fetched.data), contents=parse_articles(fetched.data))
        except MetadataError as error:
            return replace(read, reason=error.reason, detail=str(error))


def open_records(settings: Settings) -> Database:
    """The database of the settings, with its schema checked. Raises BinwatchError if it cannot be reached."""
    database = connect(settings.database_url.get_secret_value())
    if database.dialect.name == "postgresql":
        event.listen(database, "do_connect", _watch_over)
    try:
        check_schema(database)
    except SQLAlchemyError as error:
        raise database_outage(error, database) from error
    return database


def _watch_over(_: object, __: object, ___: object, options: dict[str, Any]) -> None:
    for name, value in _WATCHED.items():
        options.setdefault(name, value)


def _record(engine: Engine, loaded: LoadedPhoto, answer: Prediction | PhotoError | None) -> NewCount:
    return new_count(
        engine,
        loaded.error if isinstance(loaded.error, PhotoError) else answer,
        bucket=loaded.item.bucket,
        key=loaded.item.key,
        etag=loaded.etag,
        version_id=loaded.version_id,
        photo=loaded.photo,
        stats=loaded.stats,
        size=loaded.bytes,
        modified_at=loaded.modified or _announced(loaded.item),
    )


def _gives_up(outage: Outage) -> PhotoError:
    return PhotoError(Reason.FETCH_FAILED, f"{outage.error}; the bucket answers, so only this object fails")


def _etag(item: ObjectCreated, fetched: FetchedObject) -> str:
    """The fetched ETag, or the listed one if a proxy has extended it: one that compresses makes "abc" "abc-gzip"."""
    return item.etag if item.etag and fetched.etag.startswith(item.etag) else fetched.etag


def _announced(item: ObjectCreated) -> datetime:
    """Time of the event, for an object that cannot be fetched, so whose own time is not known.

    Not the present time: an event that is delivered twice would leave two records.
    """
    return item.time or _LONG_AGO
