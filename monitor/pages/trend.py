"""The overview's lines: agreement and estimated accuracy over time, as a chart and as a table."""

from __future__ import annotations

from datetime import datetime

from monitor.charts.axes import Span
from monitor.charts.timeline import Point, Timeline, timeline
from monitor.formatting import many, moment, number, share
from monitor.summary import wilson
from monitor.views.overview import TimeBucket, Trend


def chart_of(trend: Trend) -> Timeline:
    """A point in the middle of each bucket that something was recorded in."""
    series = [
        ("estimated", "Estimated accuracy", [_estimated(bucket) for bucket in trend.buckets]),
        ("agreement", "Agreement", [_agreement(bucket) for bucket in trend.buckets]),
    ]
    changes = [(change.at, change.model) for change in trend.changes]
    return timeline(Span(trend.start, trend.end), series, changes)


def says(trend: Trend) -> str:
    """The chart in a sentence, for those who cannot see it."""
    known = [bucket for bucket in trend.buckets if bucket.agreement is not None]
    if not known:
        return "Nothing was compared in this time."
    first, last = known[0], known[-1]
    return (
        f"Agreement went from {share(first.agreement, first.comparisons)} ({moment(first.start)})"
        f" to {share(last.agreement, last.comparisons)} ({moment(last.start)})."
    )


def _agreement(bucket: TimeBucket) -> Point:
    bounds = bucket.interval
    return Point(
        _middle(bucket),
        bucket.agreement,
        bounds.low if bounds else None,
        bounds.high if bounds else None,
        f"{moment(bucket.start)}: agreement {share(bucket.agreement, bucket.comparisons)} of"
        f" {number(bucket.comparisons)} compared",
    )


def _estimated(bucket: TimeBucket) -> Point:
    # As if the estimate were a share of so many photos; how far it may be off besides, no one can know without audits.
    bounds = wilson(round((bucket.estimated or 0) * bucket.photos), bucket.photos)
    return Point(
        _middle(bucket),
        bucket.estimated,
        bounds.low if bounds else None,
        bounds.high if bounds else None,
        f"{moment(bucket.start)}: estimated accuracy {share(bucket.estimated, bucket.photos)} of"
        f" {many(bucket.photos, 'photo')}",
    )


def _middle(bucket: TimeBucket) -> datetime:
    return bucket.start + (bucket.end - bucket.start) / 2
