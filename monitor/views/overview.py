"""The first page: is all well, and if not, where to look."""

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
from monitor.views.drift import DriftInBrief, brief_drift

LATEST = 12
"""Photos on the page: full rows of 2, 3, 4 and 6."""

ReferenceOf = Callable[[str], Reference | None]
"""A model's version → the reference of its bundle, which says how often it is right; None if that is not loaded."""


class TimeRange(StrEnum):
    """How far back the lines go."""

    DAY = "1d"
    WEEK = "7d"
    MONTH = "30d"
    QUARTER = "90d"


@dataclass(frozen=True, slots=True)
class _Length:
    buckets: int
    each: timedelta


_LENGTHS = {
    TimeRange.DAY: _Length(24, timedelta(hours=1)),
    TimeRange.WEEK: _Length(28, timedelta(hours=6)),
    TimeRange.MONTH: _Length(30, timedelta(days=1)),
    TimeRange.QUARTER: _Length(30, timedelta(days=3)),
}
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)


class TimeBucket(BaseModel):
    """What was recorded from `start` to `end`. Shares are 0 to 1, and None where there is nothing to take one of."""

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
    """The model that counted most of them."""


class ModelChange(BaseModel):
    """Another model began to count."""

    at: datetime
    """Begin of the bucket in which it did."""
    model: str
    previous: str


class Trend(BaseModel):
    """Agreement, estimated accuracy and error direction over time, by when it was recorded."""

    span: TimeRange
    start: datetime
    end: datetime
    buckets: list[TimeBucket]
    """Of equal length, without gaps; buckets in which nothing was recorded included."""
    changes: list[ModelChange]


class Backlog(BaseModel):
    """What waits for people. What waits in queues is not in the records; the metrics of the workers say it."""

    flagged: int
    """Flagged bins that nobody has audited."""
    photo_without_quantity: int
    quantity_without_photo: int
    failed_photos: int
    """Photos that could not be counted, by any model, ever."""
    cannot_tell: int
    """Bins whose auditor could not tell from the photo."""
    go_and_count: int
    """Bins whose auditor said that somebody must go and count."""
    variances: int
    """Variances that wait for a recount or for an approver."""


class Overview(BaseModel):
    """Everything on the first page."""

    summary: Summary
    trend: Trend
    drift: DriftInBrief
    level: Level
    backlog: Backlog
    random_audits: RandomAudits | None
    """None until it has been computed, and while that fails."""
    latest: list[CountedPhoto]
    """The photos that were recorded last, the newest first; empty while there is none."""


def read_overview(
    connection: Connection,
    report: DriftReport | None,
    reference_of: ReferenceOf,
    alpha: float,
    direction: Suspicion = Suspicion.EITHER,
    model: str | None = None,
    span: TimeRange = TimeRange.WEEK,
    now: datetime | None = None,
    random_audits: RandomAudits | None = None,
) -> Overview:
    """The first page, its figures about `model` or the one in use. Raises UnknownModel."""
    totals = read_totals(connection)
    summary = summarise(totals, model)
    level = read_level(connection, alpha, direction)
    answers = count_answers(connection, (AuditAnswer.CANNOT_TELL, AuditAnswer.GO_AND_COUNT))
    return Overview(
        summary=summary,
        trend=read_trend(connection, span, reference_of, now),
        drift=brief_drift(report),
        level=level,
        backlog=Backlog(
            flagged=level.unaudited,
            photo_without_quantity=summary.bins.photo_without_quantity,
            quantity_without_photo=summary.bins.quantity_without_photo,
            failed_photos=sum(photos for (_, reason), photos in totals.photos.items() if reason),
            cannot_tell=answers[AuditAnswer.CANNOT_TELL],
            go_and_count=answers[AuditAnswer.GO_AND_COUNT],
            variances=sum(number for state, number in totals.variances.items() if not state.is_closed),
        ),
        random_audits=random_audits,
        latest=read_latest(connection, LATEST),
    )


def read_trend(
    connection: Connection, span: TimeRange, reference_of: ReferenceOf, now: datetime | None = None
) -> Trend:
    """The lines of all models together, up to the end of the bucket that `now` is in."""
    length = _LENGTHS[span]
    # The next multiple of a bucket's length since midnight of some day (UTC).
    end = _ORIGIN + (((now or datetime.now(UTC)) - _ORIGIN) // length.each + 1) * length.each
    start = end - length.buckets * length.each
    sums = _read_sums(connection, start, end, length)
    references = {version: reference_of(version) for version in {name for one in sums for name in one.photos}}
    buckets = [_bucket(start + index * length.each, length.each, one, references) for index, one in enumerate(sums)]
    used = [(bucket.start, bucket.model) for bucket in buckets if bucket.model is not None]
    changes = [
        ModelChange(at=at, model=model, previous=previous)
        for (_, previous), (at, model) in pairwise(used)
        if model != previous
    ]
    return Trend(span=span, start=start, end=end, buckets=buckets, changes=changes)


def _read_sums(connection: Connection, start: datetime, end: datetime, length: _Length) -> list[_Sums]:
    """What was recorded in each bucket. The database adds up: 90 days of hours would take longer to hand over."""
    sums = [_Sums() for _ in range(length.buckets)]
    compared = (
        select(_bucket_of(ComparisonHour.hour, start, length), ComparisonHour.outcome)
        .add_columns(func.sum(ComparisonHour.comparisons))
        .where(ComparisonHour.hour >= start, ComparisonHour.hour < end)
        .group_by("bucket", ComparisonHour.outcome)
    )
    for bucket, outcome, number in connection.execute(compared):
        sums[bucket].outcomes[Outcome(outcome)] += int(number)
    counted = (
        select(_bucket_of(PhotoHour.hour, start, length), PhotoHour.model_version)
        .add_columns(func.sum(PhotoHour.photos), func.sum(PhotoHour.confidence))
        .where(PhotoHour.hour >= start, PhotoHour.hour < end)
        .group_by("bucket", PhotoHour.model_version, PhotoHour.tenth)
    )
    for bucket, version, photos, confidence in connection.execute(counted):
        sums[bucket].photos[version].append((int(photos), confidence))
    return sums


def _bucket_of(hour: InstrumentedAttribute[datetime], start: datetime, length: _Length) -> ColumnElement[int]:
    """Index of the bucket that an hour is in."""
    seconds = cast(extract("epoch", hour), Integer) - int(start.timestamp())
    return (seconds // int(length.each.total_seconds())).label("bucket")


@dataclass(slots=True)
class _Sums:
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    photos: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    """Model → photos of one tenth of confidence, and the sum of the probabilities of their counts."""


def _bucket(start: datetime, each: timedelta, sums: _Sums, references: Mapping[str, Reference | None]) -> TimeBucket:
    exact, total = sums.outcomes[Outcome.EXACT], sum(sums.outcomes.values())
    photos = {model: sum(number for number, _ in parts) for model, parts in sums.photos.items()}
    number = sum(photos.values())
    right = sum(_right(parts, references[model]) for model, parts in sums.photos.items())
    return TimeBucket(
        start=start,
        end=start + each,
        comparisons=total,
        exact=exact,
        under=sums.outcomes[Outcome.UNDER],
        over=sums.outcomes[Outcome.OVER],
        agreement=exact / total if total else None,
        interval=wilson(exact, total),
        photos=number,
        estimated=right / number if number else None,
        model=max(sorted(photos), key=lambda model: photos[model]) if photos else None,
    )


def _right(parts: Iterable[tuple[int, float]], reference: Reference | None) -> float:
    """Photos that are probably counted right, as monitor.drift.estimate finds it, a tenth of confidence at a time."""
    weighed = np.array([(photos, confidence / photos) for photos, confidence in parts if photos])
    if not len(weighed):
        return 0.0
    photos, confidence = weighed.T
    if reference is None or len(reference.reliability) < 2:
        return float(photos @ confidence)
    known, accuracy = np.array(sorted(reference.reliability)).T
    return float(photos @ np.interp(confidence, known, accuracy))
