"""The same-hours baseline: photos of the same hours in previous weeks, so that the time of day and week is no drift."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy import Connection, RowMapping, select

from binwatch.bundle import EmbeddingReference, Reference
from binwatch.counts import CLASSES
from binwatch.records.tables import Count
from binwatch.reference import MIN_DEVIATION, MIN_REFERENCE_BINS, Signal, quantiles
from monitor.drift.windows import MAX_WINDOW_PHOTOS, Floats, Ints, PhotoSample, draw_photos, first_id_since

WEEK = timedelta(days=7)
WEEKS = 4
"""Number of previous weeks that a window is compared with."""
MAX_PHOTOS_PER_WEEK = MAX_WINDOW_PHOTOS // WEEKS
MIN_SIGNAL_COVERAGE = 0.9
"""Minimum share of the photos that must have a value of a signal. With fewer, the signal is not compared, because its
sample would be smaller than the reference claims."""


def draw_same_hours(
    connection: Connection, model: str, starts: Sequence[datetime], end: datetime, slice_id: int = 0
) -> list[list[int]]:
    """Return, for each window from one of `starts` to `end`, ids of photos of the same hours in the previous weeks.

    `starts` are in the order of the windows' lengths, the shortest first. The list of a window longer than a week is
    empty, since the week before would include the window's own photos. A bin may have a photo in each week;
    read_samples keeps one of them by `hashed_id`. `slice_id` restricts the draw to one slice; 0 means all photos.
    """
    within_week = [start for start in starts if end - start <= WEEK]
    if not within_week:
        return [[] for _ in starts]
    # The shortest window has a draw of its own: too few photos of the longest window's draw would fall into it.
    shortest = _draw_photos(connection, model, within_week[0], end, slice_id)
    longest = _draw_photos(connection, model, within_week[-1], end, slice_id)
    return [
        [photo_id for photo_id, _ in shortest],
        *([photo_id for photo_id, offset in longest if offset >= start - end] for start in within_week[1:]),
        *([] for _ in starts[len(within_week) :]),
    ]


def _draw_photos(
    connection: Connection, model: str, start: datetime, end: datetime, slice_id: int
) -> list[tuple[int, timedelta]]:
    """Return ids of photos, each with the (negative) offset of its time from the end of its week's window."""
    photos = []
    for week in range(1, WEEKS + 1):
        week_end = end - week * WEEK
        after, up_to = ((first_id_since(connection, moment) or 1) - 1 for moment in (start - week * WEEK, week_end))
        ids = draw_photos(connection, model, after, up_to, MAX_PHOTOS_PER_WEEK, slice_id)
        rows = connection.execute(select(Count.id, Count.recorded_at).where(Count.id.in_(ids)))
        photos += [(photo_id, recorded_at - week_end) for photo_id, recorded_at in rows]
    return photos


def hashed_id(row: RowMapping) -> int:
    """Sort key that keeps, of a bin's photos, that of a random week. The latest ones are all of the previous week."""
    return zlib.crc32(str(row["id"]).encode())


def make_same_hours_reference(sample: PhotoSample, training: Reference | None) -> Reference | None:
    """Make a reference from recorded photos; None if there are fewer than MIN_REFERENCE_BINS.

    Embeddings are compared along the axes of `training`, the reference in the bundle.
    """
    if sample.size < MIN_REFERENCE_BINS:
        return None
    continuous = {Signal.CONFIDENCE: sample.confidence, **sample.properties}
    return Reference(
        photos=sample.size,
        predicted=_class_counts(sample.predicted),
        labels=_class_counts(sample.expected),
        confidence=quantiles(sample.confidence, 11),
        quantiles={
            signal.value: quantiles(values)
            for signal, values in continuous.items()
            if len(values) >= MIN_SIGNAL_COVERAGE * sample.size
        },
        embedding=_embedding_reference(training.embedding, sample) if training and training.embedding else None,
    )


def _class_counts(classes: Ints) -> list[int]:
    return [int(count) for count in np.bincount(classes, minlength=len(CLASSES))]


def _embedding_reference(training: EmbeddingReference, sample: PhotoSample) -> EmbeddingReference | None:
    """Return the mean of the sample's embeddings, and the axes of `training` rotated and scaled to their variances."""
    axes = np.array(training.axes)
    if len(sample.embeddings) < MIN_SIGNAL_COVERAGE * sample.size or axes.shape[1:] != sample.embeddings.shape[1:]:
        return None
    mean: Floats = sample.embeddings.mean(axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(np.atleast_2d(np.cov(((sample.embeddings - mean) @ axes.T).T)))
    varies = variances > MIN_DEVIATION**2
    if not varies.any():
        return None
    rotated = (directions[:, varies] / np.sqrt(variances[varies])).T @ axes
    return EmbeddingReference(mean=mean.tolist(), axes=rotated.tolist())
