"""The same hours before: what a window is compared with where time of day and weekday are not to be drift."""

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
from monitor.drift.windows import SAMPLE, Floats, Ints, PhotoSample, draw_photos, first_since

WEEK = timedelta(days=7)
WEEKS = 4
A_WEEK = SAMPLE // WEEKS
"""Most photos of a window's hours in one week."""
KNOWN = 0.9
"""A signal that fewer of the photos have is not compared: its sample would be smaller than is said."""


def draw_same_hours(
    connection: Connection, model: str, began: Sequence[datetime], ended: datetime, slice_id: int = 0
) -> list[list[int]]:
    """Numbers of photos of the same hours in the weeks before, of windows from `began` to `ended`, the shortest first.

    None of a window of more than a week: the photos of the week before would be its own.

    A bin may have one in each week; read_samples takes one of them, by `any_week`. `slice_id`: only photos of that
    slice; 0: of all.
    """
    fit = [since for since in began if ended - since <= WEEK]
    if not fit:
        return [[] for _ in began]
    # Of the longest window's photos, the shortest would have too few.
    shortest = _draw(connection, model, fit[0], ended, slice_id)
    longest = _draw(connection, model, fit[-1], ended, slice_id)
    others = [[photo for photo, before in longest if before >= since - ended] for since in fit[1:]]
    return [[photo for photo, _ in shortest], *others, *([] for _ in began[len(fit) :])]


def _draw(
    connection: Connection, model: str, began: datetime, ended: datetime, slice_id: int
) -> list[tuple[int, timedelta]]:
    """Numbers of photos, each with the time from its week's `ended` to its record: less than 0."""
    found = []
    for week in range(1, WEEKS + 1):
        until = ended - week * WEEK
        after, up_to = ((first_since(connection, at) or 1) - 1 for at in (began - week * WEEK, until))
        photos = draw_photos(connection, model, after, up_to, A_WEEK, slice_id)
        rows = select(Count.id, Count.recorded_at).where(Count.id.in_(photos))
        found += [(number, at - until) for number, at in connection.execute(rows)]
    return found


def any_week(row: RowMapping) -> int:
    """Of a bin's photos, one of any week is taken: of the latest ones, all would be of the week before."""
    return zlib.crc32(str(row["id"]).encode())


def make(seen: PhotoSample, training: Reference | None) -> Reference | None:
    """A reference of photos from the records; None of fewer than ENOUGH.

    `training` says along which axes embeddings are compared.
    """
    if seen.photos < MIN_REFERENCE_BINS:
        return None
    continuous = {Signal.CONFIDENCE: seen.confidence, **seen.properties}
    return Reference(
        photos=seen.photos,
        predicted=_by_class(seen.predicted),
        labels=_by_class(seen.expected),
        confidence=quantiles(seen.confidence, 11),
        quantiles={
            signal.value: quantiles(values)
            for signal, values in continuous.items()
            if len(values) >= KNOWN * seen.photos
        },
        embedding=_along(training.embedding, seen) if training and training.embedding else None,
    )


def _by_class(classes: Ints) -> list[int]:
    return [int(number) for number in np.bincount(classes, minlength=len(CLASSES))]


def _along(training: EmbeddingReference, seen: PhotoSample) -> EmbeddingReference | None:
    """Mean of the embeddings, and the axes of `training`, turned and scaled to their own deviations."""
    axes = np.array(training.axes)
    if len(seen.embeddings) < KNOWN * seen.photos or axes.shape[1:] != seen.embeddings.shape[1:]:
        return None
    mean: Floats = seen.embeddings.mean(axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(np.atleast_2d(np.cov(((seen.embeddings - mean) @ axes.T).T)))
    varies = variances > MIN_DEVIATION**2
    if not varies.any():
        return None
    turned = (directions[:, varies] / np.sqrt(variances[varies])).T @ axes
    return EmbeddingReference(mean=mean.tolist(), axes=turned.tolist())
