"""The records of a check: counts and expected quantities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine as Database
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from binwatch.bundle import Card
from binwatch.counts import describe_count, estimate_large_count
from binwatch.errors import BinwatchError
from binwatch.image import Photo
from binwatch.inventory.importing import CHUNK, new_expectation
from binwatch.inventory.reading import InventoryQuantity
from binwatch.records.engine import connect, driver_message, sqlite_url
from binwatch.records.schema import UnknownSchemaError, prepare_sqlite
from binwatch.records.store import NewCount, Store
from binwatch.records.tables import Bin, Count, Expectation
from binwatch.text import escape_unprintable
from worker.check.count import RunningCount
from worker.check.folder import PhotoFile
from worker.new_counts import new_count
from worker.pipeline import Prediction

_AT_A_TIME = 64
"""Photos in a transaction: the most that are lost if the command is stopped."""


class Counted(NamedTuple):
    """The record of one photo: a count, or the reason why there is none."""

    predicted: int | None
    probabilities: list[float] | None
    reason: str | None
    detail: str | None
    distribution: list[float] | None = None

    @property
    def in_words(self) -> str:
        """The count in words; empty if there is none."""
        return (
            ""
            if self.predicted is None
            else describe_count(self.predicted, estimate_large_count(self.predicted, self.distribution))
        )

    @property
    def confidence(self) -> float:
        """Probability of the count; 0 if there is none."""
        return 0.0 if self.predicted is None or self.probabilities is None else self.probabilities[self.predicted]


@contextmanager
def open_records(file: Path) -> Iterator[Database]:
    """Records with this release's schema, in a folder that is created if it does not exist.

    Raises BinwatchError, also for database errors in the `with` block.
    """
    folder = file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BinwatchError(
            f"{folder}: cannot be created ({error.strerror}); name another folder for the records with --records"
        ) from error
    database = connect(sqlite_url(file))
    try:
        prepare_sqlite(database)
        yield database
    except UnknownSchemaError as error:
        raise BinwatchError(
            f"{folder}: the records are from another release: {error}; or name another folder with --records"
        ) from error
    except SQLAlchemyError as error:
        raise BinwatchError(
            f"{folder}: the records cannot be used ({driver_message(error)}); name another folder with --records"
        ) from error
    finally:
        database.dispose()


def missing(database: Database, bucket: str, card: Card, photos: Iterable[PhotoFile]) -> list[PhotoFile]:
    """The photos that this model has not counted. Failed ones are tried again, since the release may be another."""
    counted = {photo for photo, found in read_counts(database, bucket, card).items() if found.reason is None}
    return [photo for photo in photos if (photo.key, photo.etag) not in counted]


def read_counts(database: Database, bucket: str, card: Card) -> dict[tuple[str, str], Counted]:
    """All counts of a model, by key and ETag."""
    columns = (Count.predicted, Count.probabilities, Count.reason, Count.detail, Count.distribution)
    statement = select(Count.key, Count.etag, *columns).where(
        Count.bucket == bucket, Count.model_version == card.version
    )
    with database.connect() as connection:
        return {(row[0], row[1]): Counted(*row[2:]) for row in connection.execute(statement)}


def record_expected(
    database: Database, store: Store, bucket: str, file: Path, expected: Sequence[InventoryQuantity]
) -> None:
    """Record new and changed quantities. They hold from now on, whenever the file was last changed."""
    current = (
        select(Bin.bin_id, Expectation.quantity)
        .join(Expectation, Expectation.id == Bin.expectation_id)
        .where(Bin.bucket == bucket)
    )
    with database.connect() as connection:
        known = {row.bin_id: row.quantity for row in connection.execute(current)}
    now, source = datetime.now(UTC), escape_unprintable(file.name)
    news = [new_expectation(one, bucket, source, "", now) for one in expected if known.get(one.bin) != one.quantity]
    for start in range(0, len(news), CHUNK):
        store.add_expectations(news[start : start + CHUNK])


def last_variant(database: Database, bucket: str, card: Card) -> str:
    """The variant of a model that counted its most recent photo: fp32, fp16 or int8."""
    own = select(Count.precision).where(Count.bucket == bucket, Count.model_version == card.version)
    with database.connect() as connection:
        return connection.execute(own.order_by(Count.id.desc()).limit(1)).scalar_one()


def left_over(
    database: Database, bucket: str, photos: Iterable[PhotoFile], expected: Iterable[InventoryQuantity]
) -> int:
    """Number of bins recorded by earlier runs that now have no photo, or no quantity in the inventory file."""
    with_photo, with_quantity = {photo.bin for photo in photos}, {one.bin for one in expected}
    bins = select(Bin.bin_id, Bin.count_id, Bin.expectation_id).where(Bin.bucket == bucket)
    with database.connect() as connection:
        return sum(
            (row.count_id is not None and row.bin_id not in with_photo)
            or (row.expectation_id is not None and row.bin_id not in with_quantity)
            for row in connection.execute(bins)
        )


def record_counts(
    store: Store,
    bucket: str,
    counting: RunningCount,
    done: Callable[[int], object],
    seen: Callable[[PhotoFile, Photo, int], object],
) -> None:
    """Record each photo's count, or the reason why it has none.

    Calls `done` with the number of newly recorded photos, and `seen` with each counted photo, decoded, and its class.
    """
    counts = _new_counts(bucket, counting, seen)
    while some := list(islice(counts, _AT_A_TIME)):
        store.add_counts(some)
        done(len(some))


def _new_counts(
    bucket: str, counting: RunningCount, seen: Callable[[PhotoFile, Photo, int], object]
) -> Iterator[NewCount]:
    for loaded, answer in counting.answers:
        if loaded.photo is not None and isinstance(answer, Prediction):
            seen(loaded.file, loaded.photo, answer.predicted)
        yield new_count(
            counting.engine,
            loaded.error or answer,
            bucket=bucket,
            key=loaded.file.key,
            etag=loaded.file.etag,
            modified_at=loaded.file.modified,
            photo=loaded.photo,
            stats=loaded.stats,
            size=loaded.size,
        )
