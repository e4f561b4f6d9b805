"""The overview's lines: agreement and estimated accuracy over time, as a chart and as a table."""

from __future__ import annotations

from monitor.charts.axes import Span
from monitor.charts.timeline import Point, Timeline, timeline
from monitor.formatting import many, moment, number, share
from monitor.summary import Interval, wilson
from monitor.views.overview import TimeBucket, Trend


def chart_of(trend: Trend) -> Timeline:
    """A point in the middle of each bucket that something was recorded in."""
    estimated, agreement = [], []
    for bucket in trend.buckets:
        # As if the estimate were a share of all its photos; only audits can tell how far it is off beyond that.
        interval = wilson(round((bucket.estimated or 0) * bucket.photos), bucket.photos)
        says = f"estimated accuracy {share(bucket.estimated, bucket.photos)} of {many(bucket.photos, 'photo')}"
        estimated.append(_point(bucket, bucket.estimated, interval, says))
        says = f"agreement {share(bucket.agreement, bucket.comparisons)} of {number(bucket.comparisons)} compared"
        agreement.append(_point(bucket, bucket.agreement, bucket.interval, says))
    series = [("estimated", "Estimated accuracy", estimated), ("agreement", "Agreement", agreement)]
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


def _point(bucket: TimeBucket, value: float | None, interval: Interval | None, says: str) -> Point:
    return Point(
        bucket.start + (bucket.end - bucket.start) / 2,
        value,
        interval.low if interval else None,
        interval.high if interval else None,
        f"{moment(bucket.start)}: {says}",
    )
