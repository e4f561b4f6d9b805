"""Samples of photos: of a time window, of the latest photos, or of a list of ids. Each read has a bounded cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, RowMapping, Select, func, select

from binwatch.counts import CLASSES, Outcome, class_of
from binwatch.embedding import unpack
from binwatch.records.tables import Count
from binwatch.reference import Signal
from monitor.recent_photos import latest_comparisons

MAX_WINDOW_PHOTOS = 2_000
"""Maximum number of photos read per window. A larger sample costs time and adds little precision."""
LATEST_PHOTOS = 1_000
"""Number of photos in Window.LATEST."""
MAX_SLICE_IDS = 10_000
"""Maximum number of a slice's photos to draw from. If there are more, the latest of each of SLICE_PERIODS are used."""
SLICE_PERIODS = 8
"""Number of equal id ranges that a busy slice is divided into."""
_CHUNK_SIZE = 1_000  # SQLite accepts 32,766 parameters per statement

_T = TypeVar("_T")
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


class Window(StrEnum):
    """A set of recent photos that is judged as a whole."""

    HOUR = "1h"
    DAY = "1d"
    WEEK = "7d"
    LATEST = "latest"


WINDOW_DURATIONS = {Window.HOUR: timedelta(hours=1), Window.DAY: timedelta(days=1), Window.WEEK: timedelta(days=7)}


@dataclass(frozen=True, slots=True)
class PhotoSample:
    """The data of n photos of different bins, counted by one model.

    Missing and non-finite values are left out, so signals may have fewer than n values: photos recorded by older
    releases have no properties.
    """

    predicted: Ints
    """Predicted class, shape (n,)."""
    confidence: Floats
    """Probability of the predicted class, shape (n,)."""
    expected: Ints
    """Expected class of each photo that was compared with the inventory."""
    agreed: int
    """Number of compared photos whose count is the expected quantity."""
    properties: dict[Signal, Floats] = field(default_factory=dict)
    """Values of the photo properties."""
    embeddings: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """Shape (photos with an embedding, embedding_size)."""

    @property
    def size(self) -> int:
        """Number of photos."""
        return len(self.predicted)

    def values(self, signal: Signal) -> Floats:
        """Return the values of a continuous signal, the confidence or a photo property; empty if there are none."""
        return self.confidence if signal is Signal.CONFIDENCE else self.properties.get(signal, np.empty(0))


def read_window(connection: Connection, window: Window, model: str, now: datetime) -> PhotoSample:
    """Read photos of different bins that `model` counted in the window: all, or at most MAX_WINDOW_PHOTOS of them."""
    rows = _latest_per_bin(_window_rows(connection, window, now), model)[-MAX_WINDOW_PHOTOS:]
    return _make_sample(rows, _read_expected(connection, [row["id"] for row in rows]))


def draw_photos(
    connection: Connection, model: str, after: int, up_to: int, max_photos: int, slice_id: int = 0
) -> list[int]:
    """Return the ids of at most `max_photos` photos of different bins that `model` counted.

    They are spread evenly over the photos with `after` < id ≤ `up_to`. `slice_id` restricts the draw to one slice;
    0 means all photos.
    """
    rows: Iterable[RowMapping]
    if slice_id:
        rows = _slice_rows(connection, slice_id, after, up_to, 4 * max_photos)
    elif up_to - after <= 4 * max_photos:
        rows = connection.execute(_COUNT_COLUMNS.where(Count.id > after, Count.id <= up_to)).mappings()
    else:
        rows = _random_rows(connection, after + 1, up_to, 2 * max_photos, _COUNT_COLUMNS)
    return [row["id"] for row in _spread(_latest_per_bin(rows, model), max_photos)]


def id_before_latest(connection: Connection, newest: int, count: int, slice_id: int = 0) -> int:
    """Return the id of the photo before the latest `count` photos up to `newest`; 0 if there are no earlier ones."""
    if not slice_id:
        return max(newest - count, 0)
    photos = select(Count.id).where(Count.slice_id == slice_id, Count.id <= newest)
    return connection.execute(photos.order_by(Count.id.desc()).offset(count).limit(1)).scalar() or 0


def _slice_rows(connection: Connection, slice_id: int, after: int, up_to: int, limit: int) -> Iterator[RowMapping]:
    """Yield at most `limit` rows spread evenly over at most MAX_SLICE_IDS photos of a slice.

    The ids come from an index, so the cost does not depend on the photos of other slices.
    """

    def latest_ids(start: int, end: int, limit: int) -> Sequence[int]:
        photos = select(Count.id).where(Count.slice_id == slice_id, Count.id > start, Count.id <= end)
        return connection.execute(photos.order_by(Count.id.desc()).limit(limit)).scalars().all()

    ids = latest_ids(after, up_to, MAX_SLICE_IDS)
    if len(ids) == MAX_SLICE_IDS:  # possibly only the last minutes of many hours
        edges = [after + (up_to - after) * period // SLICE_PERIODS for period in range(SLICE_PERIODS + 1)]
        limit_per_period = MAX_SLICE_IDS // SLICE_PERIODS
        ids = [photo_id for start, end in pairwise(edges) for photo_id in latest_ids(start, end, limit_per_period)]
    for chunk in _chunks(_spread(ids, limit)):
        yield from connection.execute(_COUNT_COLUMNS.where(Count.id.in_(chunk))).mappings()


def _spread(items: Sequence[_T], limit: int) -> list[_T]:
    """Pick at most `limit` evenly spaced items."""
    indexes = np.linspace(0, len(items) - 1, min(len(items), limit)).round().astype(int)
    return [items[index] for index in indexes]


def _id(row: RowMapping) -> int:
    photo_id: int = row["id"]
    return photo_id


def read_samples(
    connection: Connection,
    model: str,
    id_lists: Sequence[Sequence[int]],
    sort_key: Callable[[RowMapping], int] = _id,
) -> list[PhotoSample]:
    """Read one sample per list of ids. Of several photos of a bin, the one with the highest `sort_key` is kept.

    An id that is in several lists is read once.
    """
    ids = sorted({photo_id for id_list in id_lists for photo_id in id_list})
    rows = {
        row["id"]: row
        for chunk in _chunks(ids)
        for row in connection.execute(_SAMPLE_COLUMNS.where(Count.id.in_(chunk))).mappings()
    }
    expected = _read_expected(connection, ids)
    samples = []
    for id_list in id_lists:
        sample_rows = _latest_per_bin((rows[photo_id] for photo_id in id_list if photo_id in rows), model, sort_key)
        samples.append(
            _make_sample(sample_rows, {row["id"]: expected[row["id"]] for row in sample_rows if row["id"] in expected})
        )
    return samples


def _latest_per_bin(
    rows: Iterable[RowMapping], model: str, sort_key: Callable[[RowMapping], int] = _id
) -> list[RowMapping]:
    """Keep the valid row with the highest `sort_key` of each bin, ordered by id.

    Photos of one bin resemble each other: two of them are not twice the evidence.
    """
    valid = [row for row in rows if row["model_version"] == model and _is_valid(row)]
    latest = {(row["bucket"], row["bin_id"]): row for row in sorted(valid, key=sort_key)}
    return sorted(latest.values(), key=_id)


_COUNT_COLUMNS = select(Count.id, Count.bucket, Count.bin_id, Count.model_version, Count.predicted, Count.probabilities)
"""The columns needed to draw photos. The embedding, which is most of a row, is left out."""
_SAMPLE_COLUMNS = _COUNT_COLUMNS.add_columns(
    Count.width,
    Count.height,
    Count.bytes,
    Count.brightness,
    Count.contrast,
    Count.sharpness,
    Count.embedding,
    Count.recorded_at,
)


def _window_rows(connection: Connection, window: Window, now: datetime) -> Iterable[RowMapping]:
    newest = connection.execute(select(func.max(Count.id))).scalar()
    if newest is None:
        return []
    if window is Window.LATEST:
        return connection.execute(_SAMPLE_COLUMNS.order_by(Count.id.desc()).limit(LATEST_PHOTOS)).mappings()
    since = now - WINDOW_DURATIONS[window]
    oldest = first_id_since(connection, since)
    if oldest is None:
        return []
    if newest - oldest < 2 * MAX_WINDOW_PHOTOS:
        rows: Iterable[RowMapping] = connection.execute(_SAMPLE_COLUMNS.where(Count.id >= oldest)).mappings()
    else:
        rows = _random_rows(connection, oldest, newest, 2 * MAX_WINDOW_PHOTOS)
    return (row for row in rows if row["recorded_at"] >= since)


def first_id_since(connection: Connection, since: datetime) -> int | None:
    """Return the id of the first photo recorded at or after `since`. Ids are nearly in the order of recording."""
    first = select(Count.id).where(Count.recorded_at >= since).order_by(Count.recorded_at, Count.id).limit(1)
    return connection.execute(first).scalar()


def _random_rows(
    connection: Connection, oldest: int, newest: int, count: int, columns: Select[*tuple[Any, ...]] = _SAMPLE_COLUMNS
) -> Iterator[RowMapping]:
    """Yield the rows of `count` random ids, so that a week of millions of photos costs no more than one of thousands.

    The draw is seeded with `newest`: figures do not change until a photo is recorded.
    """
    ids = random.Random(newest).sample(range(oldest, newest + 1), count)  # noqa: S311 (not used for security)
    for chunk in _chunks(ids):
        yield from connection.execute(columns.where(Count.id.in_(chunk))).mappings()


def _is_valid(row: RowMapping) -> bool:
    """Return whether the photo was counted and its probabilities are valid: a damaged row would make figures NaN."""
    probabilities = row["probabilities"]
    if row["predicted"] not in range(len(CLASSES)):
        return False
    if not isinstance(probabilities, list) or len(probabilities) != len(CLASSES):
        return False
    return all(isinstance(probability, (int, float)) and 0 <= probability <= 1 for probability in probabilities)


def _read_expected(connection: Connection, count_ids: Sequence[int]) -> dict[int, tuple[int, bool]]:
    """Map each compared count to its expected class and whether it agrees, by its latest comparison."""
    return {
        count_id: (class_of(comparison["expected"]), comparison["outcome"] == Outcome.EXACT)
        for chunk in _chunks(count_ids)
        for count_id, comparison in latest_comparisons(connection, chunk).items()
    }


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _CHUNK_SIZE] for start in range(0, len(ids), _CHUNK_SIZE))


def _make_sample(rows: Sequence[RowMapping], expected: dict[int, tuple[int, bool]]) -> PhotoSample:
    return PhotoSample(
        predicted=np.array([row["predicted"] for row in rows], np.int64),
        confidence=np.array([row["probabilities"][row["predicted"]] for row in rows], float),
        expected=np.array([expected_class for expected_class, _ in expected.values()], np.int64),
        agreed=sum(agrees for _, agrees in expected.values()),
        properties={
            Signal.BRIGHTNESS: _finite(row["brightness"] for row in rows),
            Signal.CONTRAST: _finite(row["contrast"] for row in rows),
            Signal.SHARPNESS: _finite(row["sharpness"] for row in rows),
            Signal.SHAPE: _finite(
                row["width"] / row["height"] if row["width"] and row["height"] else None for row in rows
            ),
            Signal.BYTES: _finite(row["bytes"] for row in rows),
        },
        embeddings=_unpack_embeddings(
            [row["embedding"] for row in rows if row["embedding"] and len(row["embedding"]) % 2 == 0]
        ),
    )


def _finite(values: Iterable[float | None]) -> Floats:
    present: Floats = np.array([value for value in values if value is not None], float)
    finite: Floats = present[np.isfinite(present)]
    return finite


def _unpack_embeddings(packed: Sequence[bytes]) -> Floats:
    """Unpack the finite embeddings of the most common size. Other sizes come from another model of the same name."""
    if not packed:
        return np.empty((0, 0), np.float32)
    sizes = [len(data) for data in packed]
    size = max(set(sizes), key=sizes.count)
    embeddings: Floats = np.stack([unpack(data) for data in packed if len(data) == size])
    finite: Floats = embeddings[np.isfinite(embeddings).all(axis=1)]
    return finite
