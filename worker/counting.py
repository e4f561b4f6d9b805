"""Objects in S3 → records: the work of the Celery tasks, without Celery."""

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
from worker.metrics import LATENCY_TARGET_S, InstrumentedEngine, PhotoStage, WorkerMetrics
from worker.model_manager import ModelManager
from worker.new_counts import new_count
from worker.pipeline import Prediction, load_ahead, predict
from worker.starvation import StarvationCheck

logger = logging.getLogger(__name__)

_UNKNOWN_TIME = datetime.fromtimestamp(0, UTC)
"""Time of an object that cannot be fetched and whose event has no time: before all others.

Not the current time: an event that is delivered twice would leave two records.
"""

_LIBPQ_TIMEOUTS = {
    "connect_timeout": 10,
    "tcp_user_timeout": 60_000,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""Options with which libpq detects within a minute that a server has vanished, as in a failover. With the kernel's
defaults, tasks would wait for a quarter of an hour, or for two hours."""


@dataclass(frozen=True, slots=True)
class Outage:
    """An object that could not be fetched because of an outage, and must be retried."""

    item: ObjectCreated
    error: ObjectsError


@dataclass(frozen=True, slots=True)
class LoadedPhoto:
    """A fetched and decoded photo, or the error that prevented this."""

    item: ObjectCreated
    photo: Photo | None = None
    stats: PhotoStats | None = None
    etag: str = ""
    version_id: str | None = None
    bytes: int | None = None
    modified: datetime | None = None
    error: PhotoError | ObjectsError | None = None


FindCrashed = Callable[[Connection, str, Iterable[str]], set[tuple[str, str]]]
"""Query: (connection, bucket, keys) → keys and ETags of the objects that are recorded as crashed."""


class Counting:
    """Counts photos and reads expected quantities. One per process; its methods may run on several threads at once."""

    def __init__(self, settings: Settings, metrics: WorkerMetrics | None = None) -> None:
        self._settings = settings
        self.metrics = metrics or WorkerMetrics()
        self.starvation = StarvationCheck()
        self.database = open_records(settings)
        self.objects = Objects(settings)
        self.naming = settings.bin_naming
        self._store = Store(self.database, self.naming, settings.slicing)
        self.models = ModelManager(settings, self.objects, self.metrics, self._record_model)
        self.crash_counts = CrashCounts(self.database)
        self._pool = ThreadPoolExecutor(settings.fetch_threads, thread_name_prefix="fetch")

    def count(self, photos: Sequence[ObjectCreated]) -> list[Outage]:
        """Fetch, decode, infer and record. Return the photos affected by an outage of S3; all others are recorded."""
        engine = self.models.engine  # for the whole group, even if another model is promoted meanwhile
        loaded = load_ahead(self._pool, photos, partial(self._load, engine.card), ahead=len(photos))
        outages: list[Outage] = []
        counts: list[NewCount] = []
        for photo, result in predict(InstrumentedEngine(engine, self.metrics), loaded, self._settings.batch_size):
            if isinstance(photo.error, ObjectsError):
                outages.append(Outage(photo.item, photo.error))
            else:
                counts.append(_to_count(engine, photo, result))
        with self._recording():
            first_counts = self._add_counts(engine, counts)
        self._report(counts, first_counts)
        return outages

    def read_metadata(self, files: Sequence[ObjectCreated]) -> list[Outage]:
        """Fetch, parse and record expected quantities. Return the files affected by an outage of S3."""
        outages: list[Outage] = []
        expectations: list[NewExpectation] = []
        for result in self._pool.map(self._read_expectation, files):
            if isinstance(result, Outage):
                outages.append(result)
            else:
                expectations.append(result)
        with self._recording():
            self._add_expectations(expectations)
        return outages

    def record_fetch_failed_photos(self, outages: Sequence[Outage]) -> list[Outage]:
        """Record as failed the photos that cannot be fetched. If a bucket does not answer, return them all instead."""
        if not self._buckets_answer(outages):
            return list(outages)
        engine = self.models.engine
        photos = [LoadedPhoto(outage.item, etag=outage.item.etag, error=_permanent_error(outage)) for outage in outages]
        counts = [_to_count(engine, photo, None) for photo in photos]
        self._report(counts, self._add_counts(engine, counts))
        return []

    def record_fetch_failed_metadata(self, outages: Sequence[Outage]) -> list[Outage]:
        """Like `record_fetch_failed_photos`, for metadata files."""
        if not self._buckets_answer(outages):
            return list(outages)
        self._add_expectations(
            [
                replace(
                    self._empty_expectation(outage.item),
                    reason=MetadataReason.FETCH_FAILED,
                    detail=str(_permanent_error(outage)),
                )
                for outage in outages
            ]
        )
        return []

    def record_crashed_photos(self, photos: Sequence[ObjectCreated], reason: str) -> list[Outage]:
        """Record photos that crashed workers or made tasks raise. Return those affected by an outage of S3."""
        engine = self.models.engine
        uploads = [self._crashed_upload(item, reason) for item in photos]
        counts = [_to_count(engine, upload, None) for upload in uploads if isinstance(upload, LoadedPhoto)]
        self._report(counts, self._add_counts(engine, counts))
        return [upload for upload in uploads if isinstance(upload, Outage)]

    def record_crashed_metadata(self, files: Sequence[ObjectCreated], reason: str) -> list[Outage]:
        """Like `record_crashed_photos`, for metadata files."""
        uploads = [self._crashed_upload(item, reason) for item in files]
        self._add_expectations(
            [
                replace(
                    self._empty_expectation(upload.item),
                    etag=upload.etag,
                    modified_at=upload.modified or upload.item.time or _UNKNOWN_TIME,
                    reason=MetadataReason.CRASHED,
                    detail=str(upload.error),
                )
                for upload in uploads
                if isinstance(upload, LoadedPhoto)
            ]
        )
        return [upload for upload in uploads if isinstance(upload, Outage)]

    def crashed_keys(self, objects: Sequence[ObjectCreated], find_crashed: FindCrashed) -> set[str]:
        """Return the keys of the objects that are recorded as crashed and have not been replaced since."""
        keys: set[str] = set()
        with self.database.connect() as connection:
            for bucket in {item.bucket for item in objects}:
                by_key = {item.key: item for item in objects if item.bucket == bucket}
                for key, etag in find_crashed(connection, bucket, by_key):
                    if key in by_key and self._has_etag(by_key[key], etag):
                        keys.add(key)
        return keys

    def _has_etag(self, item: ObjectCreated, etag: str) -> bool:
        """Return whether the object has this ETag, in the event or in the bucket. False if it cannot be looked up."""
        try:
            return etag in (item.etag, self.objects.head(item.bucket, item.key).etag)
        except BinwatchError:
            return False

    def _crashed_upload(self, item: ObjectCreated, reason: str) -> LoadedPhoto | Outage:
        """Identify the upload that crashed workers or tasks, without fetching its bytes."""
        error = PhotoError(Reason.CRASHED, f"{reason}; keep a copy, report it, and upload the photo again")
        try:
            head = self.objects.head(item.bucket, item.key)
        except ObjectRefused:
            return LoadedPhoto(item, etag=item.etag, error=error)
        except ObjectsError as outage:
            return Outage(item, outage)
        etag = item.etag if item.etag and item.time == head.modified else head.etag
        return LoadedPhoto(item, etag=etag, version_id=head.version_id, modified=head.modified, error=error)

    def _buckets_answer(self, outages: Sequence[Outage]) -> bool:
        """Return whether the buckets of all these objects answer."""
        try:
            for bucket in {outage.item.bucket for outage in outages}:
                self.objects.check(bucket)
        except BinwatchError:
            return False
        return True

    def probes(self) -> dict[str, Callable[[], object]]:
        """Return health checks of the parts that counting needs: name → function that raises if the part fails."""
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
        """Turn an error into RecordsNotWritable if the records cannot be written at all: then no object is to blame."""
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
            self._record_model(self.models.engine.card)
        except SQLAlchemyError as error:  # the first photo records it, and the health check reports the error
            logger.warning("model: cannot be added to the records: %s", explain(error, self.database))

    def _record_model(self, card: Card) -> datetime:
        """Record a model in use, unless it is recorded already; return the time when it was first recorded."""
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
            failure = PhotoError(Reason(error.reason), str(error))
            return LoadedPhoto(item, etag=error.etag or item.etag, modified=error.modified, error=failure)
        except ObjectsError as error:
            return LoadedPhoto(item, error=error)
        # Without the bytes: otherwise a waiting group would hold each photo twice, encoded and decoded.
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

    def _add_counts(self, engine: Engine, counts: Sequence[NewCount]) -> list[NewCount]:
        """Record counts and failures. Return the first counts of their photos (see `_first_counts`)."""
        self._store.use_model(engine.card.version, engine.card.calibration)
        first_counts = self._first_counts(counts)
        self._store.add_counts(counts)
        return first_counts

    def _first_counts(self, counts: Sequence[NewCount]) -> list[NewCount]:
        """Return the counts of photos that were stored after Binwatch started counting, and have no record yet.

        Only for these is the age the time that they waited to be counted. That excludes photos that existed before
        Binwatch, photos that another model has counted, photos that could not be fetched before, and redelivered ones.
        Records are looked up only for photos older than LATENCY_TARGET_S. Without an event source, a schedule
        determines when photos are counted, so none are returned.
        """
        if self._settings.event_source is EventSource.NONE:
            return []
        since = self._store.first_model_used_at().replace(microsecond=0)  # S3's times are whole seconds
        new = [count for count in counts if count.modified_at >= since]
        late_before = datetime.now(UTC) - timedelta(seconds=LATENCY_TARGET_S)
        recorded = self._recorded([count for count in new if count.modified_at < late_before])
        return [count for count in new if (count.bucket, count.key) not in recorded]

    def _recorded(self, counts: Sequence[NewCount]) -> set[tuple[str, str]]:
        """Return bucket and key of the photos that have a record by any model."""
        recorded: set[tuple[str, str]] = set()
        for bucket in {count.bucket for count in counts}:
            photos = [ObjectCreated(bucket, item.key, item.modified_at) for item in counts if item.bucket == bucket]
            with self.database.connect() as connection:
                recorded |= {(bucket, key) for key in recorded_keys(connection, bucket, photos, naming=self.naming)}
        return recorded

    def _report(self, counts: Sequence[NewCount], first_counts: Sequence[NewCount]) -> None:
        """Update the metrics, and log failed photos."""
        now = datetime.now(UTC)
        for count in first_counts:
            self.metrics.observe_photo_age((now - count.modified_at).total_seconds())
        for count in counts:
            self.metrics.count_photo(count.reason)
            if count.reason is not None:
                context = {"bin": self.naming(count.key), "key": count.key}
                logger.warning("photo failed: %s", count.detail, extra=context)

    def _add_expectations(self, expectations: Sequence[NewExpectation]) -> None:
        """Record expected quantities and failures."""
        self._store.add_expectations(expectations)
        for expectation in expectations:
            self.metrics.count_metadata_file(expectation.reason)

    def _empty_expectation(self, item: ObjectCreated) -> NewExpectation:
        """Return the record of a metadata file as far as it is known before the file is fetched."""
        return NewExpectation(
            bucket=item.bucket,
            bin_id=self.naming(item.key),
            source=item.key,
            etag=item.etag,
            modified_at=item.time or _UNKNOWN_TIME,
        )

    def _read_expectation(self, item: ObjectCreated) -> NewExpectation | Outage:
        expectation = self._empty_expectation(item)
        try:
            fetched = self.objects.fetch(item.bucket, item.key, max_bytes=self._settings.max_metadata_bytes)
        except ObjectRefused as error:
            return replace(
                expectation,
                etag=error.etag or item.etag,
                modified_at=error.modified or expectation.modified_at,
                reason=MetadataReason(error.reason),
                detail=str(error),
            )
        except ObjectsError as error:
            return Outage(item, error)
        expectation = replace(expectation, etag=_etag(item, fetched), modified_at=fetched.modified)
        try:
            return replace(expectation, quantity=expected_quantity(fetched.data), contents=parse_articles(fetched.data))
        except MetadataError as error:
            return replace(expectation, reason=error.reason, detail=str(error))


def open_records(settings: Settings) -> Database:
    """Connect to the database of the settings, and check its schema. Raises BinwatchError if either fails."""
    database = connect(settings.database_url.get_secret_value())
    if database.dialect.name == "postgresql":

        @event.listens_for(database, "do_connect")
        def set_timeouts(_: object, __: object, ___: object, options: dict[str, Any]) -> None:
            for name, value in _LIBPQ_TIMEOUTS.items():
                options.setdefault(name, value)

    try:
        check_schema(database)
    except SQLAlchemyError as error:
        raise database_outage(error, database) from error
    return database


def _to_count(engine: Engine, loaded: LoadedPhoto, result: Prediction | PhotoError | None) -> NewCount:
    return new_count(
        engine,
        loaded.error if isinstance(loaded.error, PhotoError) else result,
        bucket=loaded.item.bucket,
        key=loaded.item.key,
        etag=loaded.etag,
        version_id=loaded.version_id,
        photo=loaded.photo,
        stats=loaded.stats,
        size=loaded.bytes,
        modified_at=loaded.modified or loaded.item.time or _UNKNOWN_TIME,
    )


def _permanent_error(outage: Outage) -> PhotoError:
    return PhotoError(Reason.FETCH_FAILED, f"{outage.error}; the bucket answers, so only this object fails")


def _etag(item: ObjectCreated, fetched: FetchedObject) -> str:
    """Return the fetched ETag, or the item's if a proxy has extended that one: "abc-gzip" instead of "abc"."""
    return item.etag if item.etag and fetched.etag.startswith(item.etag) else fetched.etag
