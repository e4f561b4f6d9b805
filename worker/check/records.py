"""The database of a check: counts and expected quantities."""

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
from binwatch.inventory.importing import chunks, new_expectation
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

_TRANSACTION_PHOTOS = 64
"""Number of photos per transaction, which is the maximum number of counts lost if the command is stopped."""


class RecordedCount(NamedTuple):
    """The record of one photo: a count, or the reason why there is none."""

    predicted: int | None
    probabilities: list[float] | None
    reason: str | None
    detail: str | None
    distribution: list[float] | None = None

    @property
    def text(self) -> str:
        """The count as text, such as "3" or "more than 5"; empty if there is none."""
        if self.predicted is None:
            return ""
        return describe_count(self.predicted, estimate_large_count(self.predicted, self.distribution))

    @property
    def confidence(self) -> float:
        """Probability of the count; 0 if there is none."""
        return 0.0 if self.predicted is None or self.probabilities is None else self.probabilities[self.predicted]


@contextmanager
def open_records(file: Path) -> Iterator[Database]:
    """Open the records with this release's schema, and create their folder if it does not exist.

    Raises BinwatchError, also in place of database errors in the `with` block.
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


def uncounted_photos(database: Database, bucket: str, card: Card, photos: Iterable[PhotoFile]) -> list[PhotoFile]:
    """Return the photos that this model has not counted, including failed ones, which a newer release may count."""
    counted = {photo for photo, count in read_counts(database, bucket, card).items() if count.reason is None}
    return [photo for photo in photos if (photo.key, photo.etag) not in counted]


def read_counts(database: Database, bucket: str, card: Card) -> dict[tuple[str, str], RecordedCount]:
    """Return all counts by a model, by key and ETag."""
    columns = (Count.predicted, Count.probabilities, Count.reason, Count.detail, Count.distribution)
    statement = select(Count.key, Count.etag, *columns).where(
        Count.bucket == bucket, Count.model_version == card.version
    )
    with database.connect() as connection:
        return {(row[0], row[1]): RecordedCount(*row[2:]) for row in connection.execute(statement)}


def record_expectations(
    database: Database, store: Store, bucket: str, file: Path, expected: Sequence[InventoryQuantity]
) -> None:
    """Record new and changed quantities, valid from now on, regardless of when the file was last changed."""
    current = (
        select(Bin.bin_id, Expectation.quantity)
        .join(Expectation, Expectation.id == Bin.expectation_id)
        .where(Bin.bucket == bucket)
    )
    with database.connect() as connection:
        recorded = {row.bin_id: row.quantity for row in connection.execute(current)}
    now, source = datetime.now(UTC), escape_unprintable(file.name)
    changed = (quantity for quantity in expected if recorded.get(quantity.bin) != quantity.quantity)
    for chunk in chunks(changed):
        store.add_expectations([new_expectation(quantity, bucket, source, "", now) for quantity in chunk])


def latest_variant(database: Database, bucket: str, card: Card) -> str:
    """Return the variant with which a model counted its most recent photo: fp32, fp16 or int8."""
    variants = select(Count.precision).where(Count.bucket == bucket, Count.model_version == card.version)
    with database.connect() as connection:
        return connection.execute(variants.order_by(Count.id.desc()).limit(1)).scalar_one()


def count_outdated_bins(
    database: Database, bucket: str, photos: Iterable[PhotoFile], expected: Iterable[InventoryQuantity]
) -> int:
    """Return the number of recorded bins that no longer have a photo, or a quantity in the inventory file."""
    with_photo, with_quantity = {photo.bin for photo in photos}, {quantity.bin for quantity in expected}
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
    running: RunningCount,
    on_recorded: Callable[[int], object],
    on_counted: Callable[[PhotoFile, Photo, int], object],
) -> None:
    """Record each photo's count, or the reason why it has none.

    Calls `on_counted` with each counted file, its decoded photo and its class, and `on_recorded` with the number of
    photos in each transaction.
    """
    counts = _new_counts(bucket, running, on_counted)
    while chunk := list(islice(counts, _TRANSACTION_PHOTOS)):
        store.add_counts(chunk)
        on_recorded(len(chunk))


def _new_counts(
    bucket: str, running: RunningCount, on_counted: Callable[[PhotoFile, Photo, int], object]
) -> Iterator[NewCount]:
    for loaded, result in running.results:
        if loaded.photo is not None and isinstance(result, Prediction):
            on_counted(loaded.file, loaded.photo, result.predicted)
        yield new_count(
            running.engine,
            loaded.error or result,
            bucket=bucket,
            key=loaded.file.key,
            etag=loaded.file.etag,
            modified_at=loaded.file.modified,
            photo=loaded.photo,
            stats=loaded.stats,
            size=loaded.size,
        )
