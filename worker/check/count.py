"""Counts the photos of a folder that the records do not have yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Engine as Database
from sqlalchemy import select

from binwatch.bundle import Bundle, Card
from binwatch.counts import beyond, count_in_words
from binwatch.errors import PhotoError
from binwatch.image import Photo
from binwatch.photo_stats import PhotoStats, photo_stats
from binwatch.records.store import NewCount, Store
from binwatch.records.tables import Count
from binwatch.settings import Settings
from worker.check.folder import PhotoFile
from worker.engine import Engine
from worker.files import file_source
from worker.new_counts import new_count
from worker.pipeline import Prediction, load_ahead, predict

_AT_A_TIME = 64
"""Photos in a transaction: who stops the command loses no more."""
_AHEAD = 4


class Counted(NamedTuple):
    """What the records have of one photo: a count, or the reason why there is none."""

    predicted: int | None
    probabilities: list[float] | None
    reason: str | None
    detail: str | None
    distribution: list[float] | None = None

    @property
    def in_words(self) -> str:
        """The count as people read it; empty if there is none."""
        return (
            "" if self.predicted is None else count_in_words(self.predicted, beyond(self.predicted, self.distribution))
        )


@dataclass(frozen=True, slots=True)
class _Loaded:
    file: PhotoFile
    photo: Photo | None = None
    stats: PhotoStats | None = None
    size: int | None = None
    error: PhotoError | None = None


def missing(database: Database, bucket: str, card: Card, photos: Iterable[PhotoFile]) -> list[PhotoFile]:
    """The photos that this model has not counted. What failed is tried again: it may be another release that tries."""
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


def count(
    settings: Settings,
    bundle: Bundle,
    store: Store,
    photos: Sequence[PhotoFile],
    done: Callable[[int], object],
    seen: Callable[[PhotoFile, Photo, int], object],
) -> None:
    """Count photos and record each, or why it cannot be counted.

    `done` is told how many more are recorded, `seen` each photo that is counted, while it is decoded, and its class.
    """
    engine = Engine.of(bundle, settings)
    with ThreadPoolExecutor(settings.fetch_threads) as pool:
        counts = _counts(settings, engine, pool, photos, seen)
        while some := list(islice(counts, _AT_A_TIME)):
            store.add_counts(some)
            done(len(some))


def _counts(
    settings: Settings,
    engine: Engine,
    pool: ThreadPoolExecutor,
    photos: Sequence[PhotoFile],
    seen: Callable[[PhotoFile, Photo, int], object],
) -> Iterator[NewCount]:
    def load(file: PhotoFile) -> _Loaded:
        try:
            data = file_source(file.path, settings.max_photo_bytes).read()
            photo = engine.card.load_photo(data, settings.limits)
        except PhotoError as error:
            return _Loaded(file, error=error)
        return _Loaded(file, photo, photo_stats(photo.pixels), len(data))

    for loaded, answer in predict(
        engine, load_ahead(pool, photos, load, _AHEAD * settings.batch_size), settings.batch_size
    ):
        if loaded.photo is not None and isinstance(answer, Prediction):
            seen(loaded.file, loaded.photo, answer.predicted)
        yield new_count(
            engine,
            loaded.error or answer,
            bucket=settings.bucket,
            key=loaded.file.key,
            etag=loaded.file.etag,
            modified_at=loaded.file.modified,
            photo=loaded.photo,
            stats=loaded.stats,
            size=loaded.size,
        )
