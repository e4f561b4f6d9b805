"""The overview: the figures of the first page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise

import numpy as np
from pydantic import BaseModel
from sqlalchemy import ColumnElement, Connection, Integer, cast, extract, func, select
from sqlalchemy.orm import InstrumentedAttribute

from binwatch.bundle import Reference
from binwatch.counts import Outcome, Suspicion
from binwatch.records.audits import AuditAnswer
from binwatch.records.tables import ComparisonHour, PhotoHour
from monitor.drift.report import DriftReport
from monitor.random_audits import RandomAudits
from monitor.recent_photos import CountedPhoto, read_latest
from monitor.summary import Interval, Summary, summarise, wilson
from monitor.totals import read_totals
from monitor.views.discrepancies import Level, count_answers, read_level
from monitor.views.drift import DriftSummary, summarise_drift

LATEST_PHOTOS = 12
"""Number of photos on the page: full rows in layouts of 2, 3, 4 and 6 columns."""

FindReference = Callable[[str], Reference | None]
"""Function that returns the reference of a model's version, with its reliability, or None if it is not loaded."""


class TimeRange(StrEnum):
    """Time range of the trend."""

    DAY = "1d"
    WEEK = "7d"
    MONTH = "30d"
    QUARTER = "90d"


@dataclass(frozen=True, slots=True)
class _Buckets:
    """Number and width of the time buckets of a trend."""

    count: int
    width: timedelta


_BUCKETS = {
    TimeRange.DAY: _Buckets(24, timedelta(hours=1)),
    TimeRange.WEEK: _Buckets(28, timedelta(hours=6)),
    TimeRange.MONTH: _Buckets(30, timedelta(days=1)),
    TimeRange.QUARTER: _Buckets(30, timedelta(days=3)),
}
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)


class TimeBucket(BaseModel):
    """Figures of the records from `start` to `end`. Shares are 0 to 1, or None if the denominator is 0."""

    start: datetime
    end: datetime
    comparisons: int
    exact: int
    under: int
    over: int
    agreement: float | None
    interval: Interval | None
    """95 % confidence interval (Wilson) of the agreement."""
    photos: int
    """Counted photos."""
    estimated: float | None
    """Estimated accuracy of the counted photos."""
    model: str | None
    """The model that counted the most photos."""


class ModelChange(BaseModel):
    """A change of the model in use."""

    at: datetime
    """Start of the first bucket in which the new model counted the most photos."""
    model: str
    previous: str


class Trend(BaseModel):
    """Agreement, estimated accuracy and error direction over recording time."""

    span: TimeRange
    start: datetime
    end: datetime
    buckets: list[TimeBucket]
    """Buckets of equal width without gaps, including those without records."""
    changes: list[ModelChange]


class Backlog(BaseModel):
    """Open work for people. Queued photos are not in the records; see the workers' metrics for them."""

    flagged: int
    """Flagged bins that nobody has audited."""
    photo_without_quantity: int
    quantity_without_photo: int
    failed_photos: int
    """Photos that could not be counted, by any model, at any time."""
    cannot_tell: int
    """Bins whose auditor could not tell the quantity from the photo."""
    go_and_count: int
    """Bins whose auditor asked for a count at the bin."""
    variances: int
    """Variances that wait for a recount or for an approver."""


class Overview(BaseModel):
    """Everything on the first page."""

    summary: Summary
    trend: Trend
    drift: DriftSummary
    level: Level
    backlog: Backlog
    random_audits: RandomAudits | None
    """None until they have been computed, or if that failed."""
    latest: list[CountedPhoto]
    """The most recently recorded photos, newest first."""


def read_overview(
    connection: Connection,
    report: DriftReport | None,
    find_reference: FindReference,
    alpha: float,
    direction: Suspicion = Suspicion.EITHER,
    model: str | None = None,
    span: TimeRange = TimeRange.WEEK,
    now: datetime | None = None,
    random_audits: RandomAudits | None = None,
) -> Overview:
    """Return the overview of `model`, by default the model in use. Raises UnknownModel."""
    totals = read_totals(connection)
    summary = summarise(totals, model)
    level = read_level(connection, alpha, direction)
    answers = count_answers(connection, (AuditAnswer.CANNOT_TELL, AuditAnswer.GO_AND_COUNT))
    return Overview(
        summary=summary,
        trend=read_trend(connection, span, find_reference, now),
        drift=summarise_drift(report),
        level=level,
        backlog=Backlog(
            flagged=level.unaudited,
            photo_without_quantity=summary.bins.photo_without_quantity,
            quantity_without_photo=summary.bins.quantity_without_photo,
            failed_photos=sum(photos for (_, reason), photos in totals.photos.items() if reason),
            cannot_tell=answers[AuditAnswer.CANNOT_TELL],
            go_and_count=answers[AuditAnswer.GO_AND_COUNT],
            variances=sum(count for state, count in totals.variances.items() if not state.is_closed),
        ),
        random_audits=random_audits,
        latest=read_latest(connection, LATEST_PHOTOS),
    )


def read_trend(
    connection: Connection, span: TimeRange, find_reference: FindReference, now: datetime | None = None
) -> Trend:
    """Return the trend of all models together, up to the end of the bucket that contains `now`."""
    layout = _BUCKETS[span]
    # Buckets are aligned to midnight (UTC).
    end = _ORIGIN + (((now or datetime.now(UTC)) - _ORIGIN) // layout.width + 1) * layout.width
    start = end - layout.count * layout.width
    totals = _read_bucket_totals(connection, start, end, layout)
    versions = {version for bucket in totals for version in bucket.photos}
    references = {version: find_reference(version) for version in versions}
    buckets = [
        _bucket(start + index * layout.width, layout.width, bucket, references) for index, bucket in enumerate(totals)
    ]
    used = [(bucket.start, bucket.model) for bucket in buckets if bucket.model is not None]
    changes = [
        ModelChange(at=at, model=model, previous=previous)
        for (_, previous), (at, model) in pairwise(used)
        if model != previous
    ]
    return Trend(span=span, start=start, end=end, buckets=buckets, changes=changes)


def _read_bucket_totals(
    connection: Connection, start: datetime, end: datetime, layout: _Buckets
) -> list[_BucketTotals]:
    """Return the totals of each bucket. The database adds them up: reading 90 days of hourly rows would take longer."""
    totals = [_BucketTotals() for _ in range(layout.count)]
    select_outcomes = (
        select(_bucket_index(ComparisonHour.hour, start, layout), ComparisonHour.outcome)
        .add_columns(func.sum(ComparisonHour.comparisons))
        .where(ComparisonHour.hour >= start, ComparisonHour.hour < end)
        .group_by("bucket", ComparisonHour.outcome)
    )
    for index, outcome, comparisons in connection.execute(select_outcomes):
        totals[index].outcomes[Outcome(outcome)] += int(comparisons)
    select_photos = (
        select(_bucket_index(PhotoHour.hour, start, layout), PhotoHour.model_version)
        .add_columns(func.sum(PhotoHour.photos), func.sum(PhotoHour.confidence))
        .where(PhotoHour.hour >= start, PhotoHour.hour < end)
        .group_by("bucket", PhotoHour.model_version, PhotoHour.tenth)
    )
    for index, version, photos, confidence in connection.execute(select_photos):
        totals[index].photos[version].append((int(photos), confidence))
    return totals


def _bucket_index(hour: InstrumentedAttribute[datetime], start: datetime, layout: _Buckets) -> ColumnElement[int]:
    seconds = cast(extract("epoch", hour), Integer) - int(start.timestamp())
    return (seconds // int(layout.width.total_seconds())).label("bucket")


@dataclass(slots=True)
class _BucketTotals:
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    photos: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    """Model → (photos, sum of their confidences) of each tenth of confidence."""


def _bucket(
    start: datetime, width: timedelta, totals: _BucketTotals, references: Mapping[str, Reference | None]
) -> TimeBucket:
    exact, comparisons = totals.outcomes[Outcome.EXACT], sum(totals.outcomes.values())
    photos_by_model = {model: sum(photos for photos, _ in tenths) for model, tenths in totals.photos.items()}
    photos = sum(photos_by_model.values())
    correct = sum(_expected_correct(tenths, references[model]) for model, tenths in totals.photos.items())
    return TimeBucket(
        start=start,
        end=start + width,
        comparisons=comparisons,
        exact=exact,
        under=totals.outcomes[Outcome.UNDER],
        over=totals.outcomes[Outcome.OVER],
        agreement=exact / comparisons if comparisons else None,
        interval=wilson(exact, comparisons),
        photos=photos,
        estimated=correct / photos if photos else None,
        model=max(sorted(photos_by_model), key=lambda model: photos_by_model[model]) if photos_by_model else None,
    )


def _expected_correct(tenths: Iterable[tuple[int, float]], reference: Reference | None) -> float:
    """Return the expected number of correct counts: monitor.drift.estimate, applied to each tenth of confidence.

    `tenths` are pairs of a number of photos and the sum of their confidences.
    """
    means = np.array([(photos, confidence / photos) for photos, confidence in tenths if photos])
    if not len(means):
        return 0.0
    photos, confidence = means.T
    if reference is None or len(reference.reliability) < 2:
        return float(photos @ confidence)
    reference_confidence, accuracy = np.array(sorted(reference.reliability)).T
    return float(photos @ np.interp(confidence, reference_confidence, accuracy))
