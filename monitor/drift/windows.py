"""The photos of a window: by the clock, the latest so many, or by number. What it costs to read one has a limit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, RowMapping, Select, func, select

from binwatch.counts import CLASSES, Outcome, class_of
from binwatch.embedding import unpack
from binwatch.records.tables import Count
from binwatch.reference import Signal
from monitor.recent_photos import last_comparisons

SAMPLE = 2_000
"""Photos of a window that are looked at. More would cost time and tell hardly more."""
LATEST = 1_000
"""Photos in the window that goes by their number."""
MOST_OF_SLICE = 10_000
"""Photos of a slice that some are drawn from, at most: of more, the latest of each of PARTS parts of the time."""
PARTS = 8
_AT_A_TIME = 1_000  # SQLite takes 32,766 parameters in a statement

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


class Window(StrEnum):
    """Which photos are looked at together."""

    HOUR = "1h"
    DAY = "1d"
    WEEK = "7d"
    LATEST = "latest"


SPANS = {Window.HOUR: timedelta(hours=1), Window.DAY: timedelta(days=1), Window.WEEK: timedelta(days=7)}


@dataclass(frozen=True, slots=True)
class PhotoSample:
    """What is known of n counted photos, at most one of each bin, by one model.

    Signals have as many values as are recorded and finite: photos of an older release have no properties.
    """

    predicted: Ints
    """Predicted class, shape (n,)."""
    confidence: Floats
    """Probability of the count, shape (n,)."""
    expected: Ints
    """Expected class of those photos that were compared."""
    agreed: int
    """How many of those the count agrees with."""
    properties: dict[Signal, Floats] = field(default_factory=dict)
    embeddings: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """Shape (photos with one, embedding_size)."""

    @property
    def photos(self) -> int:
        """n."""
        return len(self.predicted)


def read_window(connection: Connection, window: Window, model: str, now: datetime) -> PhotoSample:
    """The photos that `model` counted in the window, or a sample of SAMPLE of them."""
    one_of_each = _one_of_each(_rows(connection, window, now), model)[-SAMPLE:]
    return _seen(one_of_each, _expected(connection, [row["id"] for row in one_of_each]))


def draw_photos(connection: Connection, model: str, after: int, up_to: int, most: int, slice_id: int = 0) -> list[int]:
    """Numbers of at most `most` photos that `model` counted, each of another bin, from after one number up to another.

    Of more, some that are spread over all. `slice_id`: only photos of that slice; 0: of all.
    """
    rows: Iterable[RowMapping]
    if slice_id:
        rows = _of_slice(connection, slice_id, after, up_to, 4 * most)
    elif up_to - after <= 4 * most:
        rows = connection.execute(_SOUND.where(Count.id > after, Count.id <= up_to)).mappings()
    else:
        rows = _drawn(connection, after + 1, up_to, 2 * most, _SOUND)
    found = _one_of_each(rows, model)
    spread = np.linspace(0, len(found) - 1, min(len(found), most)).round().astype(int)
    return [found[index]["id"] for index in spread]


def before_latest(connection: Connection, newest: int, number: int, slice_id: int = 0) -> int:
    """Number before those of the latest so many photos, of which `newest` is the last; 0 if there are not more."""
    if not slice_id:
        return max(newest - number, 0)
    photos = select(Count.id).where(Count.slice_id == slice_id, Count.id <= newest)
    return connection.execute(photos.order_by(Count.id.desc()).offset(number).limit(1)).scalar() or 0


def _of_slice(connection: Connection, slice_id: int, after: int, up_to: int, number: int) -> Iterator[RowMapping]:
    """Of MOST_OF_SLICE photos, so many that are spread over all: found in an index, whatever else came."""

    def latest(start: int, end: int, most: int) -> Sequence[int]:
        photos = select(Count.id).where(Count.slice_id == slice_id, Count.id > start, Count.id <= end)
        return connection.execute(photos.order_by(Count.id.desc()).limit(most)).scalars().all()

    ids = latest(after, up_to, MOST_OF_SLICE)
    if len(ids) == MOST_OF_SLICE:  # of many hours, these may be the last minutes
        edges = [after + (up_to - after) * part // PARTS for part in range(PARTS + 1)]
        ids = [one for start, end in pairwise(edges) for one in latest(start, end, MOST_OF_SLICE // PARTS)]
    spread = np.linspace(0, len(ids) - 1, min(len(ids), number)).round().astype(int)
    for chunk in _chunks([ids[index] for index in spread]):
        yield from connection.execute(_SOUND.where(Count.id.in_(chunk))).mappings()


def _number(row: RowMapping) -> int:
    number: int = row["id"]
    return number


def read_samples(
    connection: Connection,
    model: str,
    photos: Sequence[Sequence[int]],
    order: Callable[[RowMapping], int] = _number,
) -> list[PhotoSample]:
    """The photos of each list of numbers: of each bin the last by `order`. Those in several lists are read once."""
    numbers = sorted({number for part in photos for number in part})
    rows = {
        row["id"]: row
        for chunk in _chunks(numbers)
        for row in connection.execute(_ROW.where(Count.id.in_(chunk))).mappings()
    }
    expected = _expected(connection, numbers)
    kept = [_one_of_each((rows[number] for number in part if number in rows), model, order) for part in photos]
    return [_seen(part, {row["id"]: expected[row["id"]] for row in part if row["id"] in expected}) for part in kept]


def _one_of_each(
    rows: Iterable[RowMapping], model: str, order: Callable[[RowMapping], int] = _number
) -> list[RowMapping]:
    """Of each bin's sound rows the last by `order`, in the order of their numbers.

    Photos of one bin resemble each other: two of them are not twice the evidence.
    """
    sound = [row for row in rows if row["model_version"] == model and _is_sound(row)]
    last = {(row["bucket"], row["bin_id"]): row for row in sorted(sound, key=order)}
    return sorted(last.values(), key=_number)


_SOUND = select(Count.id, Count.bucket, Count.bin_id, Count.model_version, Count.predicted, Count.probabilities)
"""Enough to draw by: a photo's embedding is most of its row."""
_ROW = _SOUND.add_columns(
    Count.width,
    Count.height,
    Count.bytes,
    Count.brightness,
    Count.contrast,
    Count.sharpness,
    Count.embedding,
    Count.recorded_at,
)


def _rows(connection: Connection, window: Window, now: datetime) -> Iterable[RowMapping]:
    newest = connection.execute(select(func.max(Count.id))).scalar()
    if newest is None:
        return []
    if window is Window.LATEST:
        return connection.execute(_ROW.order_by(Count.id.desc()).limit(LATEST)).mappings()
    since = now - SPANS[window]
    oldest = first_since(connection, since)
    if oldest is None:
        return []
    if newest - oldest < 2 * SAMPLE:
        rows: Iterable[RowMapping] = connection.execute(_ROW.where(Count.id >= oldest)).mappings()
    else:
        rows = _drawn(connection, oldest, newest, 2 * SAMPLE)
    return (row for row in rows if row["recorded_at"] >= since)


def first_since(connection: Connection, since: datetime) -> int | None:
    """The first row of the window, found by the index on the time. Rows are numbered in nearly that order."""
    first = select(Count.id).where(Count.recorded_at >= since).order_by(Count.recorded_at, Count.id).limit(1)
    return connection.execute(first).scalar()


def _drawn(
    connection: Connection, oldest: int, newest: int, number: int, rows: Select[*tuple[Any, ...]] = _ROW
) -> Iterator[RowMapping]:
    """Rows drawn by their number, so that a week of millions costs no more than a week of thousands.

    The same numbers while no photo comes, since a figure that changes by itself looks like news.
    """
    numbers = random.Random(newest).sample(range(oldest, newest + 1), number)  # noqa: S311 (a sample, no secret)
    for chunk in _chunks(numbers):
        yield from connection.execute(rows.where(Count.id.in_(chunk))).mappings()


def _is_sound(row: RowMapping) -> bool:
    """Counted, with probabilities that are such: a damaged row must not make every figure NaN."""
    chances = row["probabilities"]
    if row["predicted"] not in range(len(CLASSES)) or not isinstance(chances, list) or len(chances) != len(CLASSES):
        return False
    return all(isinstance(chance, (int, float)) and 0 <= chance <= 1 for chance in chances)


def _expected(connection: Connection, counts: Sequence[int]) -> dict[int, tuple[int, bool]]:
    """Count id → expected class, and whether the count agrees with it, of the latest comparison."""
    found: dict[int, tuple[int, bool]] = {}
    for chunk in _chunks(counts):
        for count, compared in last_comparisons(connection, chunk).items():
            found[count] = (class_of(compared["expected"]), compared["outcome"] == Outcome.EXACT)
    return found


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _AT_A_TIME] for start in range(0, len(ids), _AT_A_TIME))


def _seen(rows: Sequence[RowMapping], expected: dict[int, tuple[int, bool]]) -> PhotoSample:
    return PhotoSample(
        predicted=np.array([row["predicted"] for row in rows], np.int64),
        confidence=np.array([row["probabilities"][row["predicted"]] for row in rows], float),
        expected=np.array([quantity for quantity, _ in expected.values()], np.int64),
        agreed=sum(agreed for _, agreed in expected.values()),
        properties={
            Signal.BRIGHTNESS: _finite(row["brightness"] for row in rows),
            Signal.CONTRAST: _finite(row["contrast"] for row in rows),
            Signal.SHARPNESS: _finite(row["sharpness"] for row in rows),
            Signal.SHAPE: _finite(
                row["width"] / row["height"] if row["width"] and row["height"] else None for row in rows
            ),
            Signal.BYTES: _finite(row["bytes"] for row in rows),
        },
        embeddings=_embeddings(
            [row["embedding"] for row in rows if row["embedding"] and len(row["embedding"]) % 2 == 0]
        ),
    )


def _finite(values: Iterable[float | None]) -> Floats:
    known: Floats = np.array([value for value in values if value is not None], float)
    finite: Floats = known[np.isfinite(known)]
    return finite


def _embeddings(packed: Sequence[bytes]) -> Floats:
    """Those of the commonest size that are finite: what differs is of another model by the same name."""
    if not packed:
        return np.empty((0, 0), np.float32)
    sizes = [len(one) for one in packed]
    size = max(set(sizes), key=sizes.count)
    found: Floats = np.stack([unpack(one) for one in packed if len(one) == size])
    finite: Floats = found[np.isfinite(found).all(axis=1)]
    return finite
