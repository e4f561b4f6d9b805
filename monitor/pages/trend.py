"""The overview's chart of agreement and estimated accuracy over time."""

from __future__ import annotations

from monitor.charts.axes import Span
from monitor.charts.timeline import Point, Timeline, timeline
from monitor.formatting import many, moment, number, share
from monitor.summary import Interval, wilson
from monitor.views.overview import TimeBucket, Trend


def trend_chart(trend: Trend) -> Timeline:
    """Return the chart, with a point in the middle of each bucket that has records."""
    estimated, agreement = [], []
    for bucket in trend.buckets:
        # Interval of a share of this many photos. It leaves out the error of the estimate, which only audits reveal.
        interval = wilson(round((bucket.estimated or 0) * bucket.photos), bucket.photos)
        text = f"estimated accuracy {share(bucket.estimated, bucket.photos)} of {many(bucket.photos, 'photo')}"
        estimated.append(_point(bucket, bucket.estimated, interval, text))
        text = f"agreement {share(bucket.agreement, bucket.comparisons)} of {number(bucket.comparisons)} compared"
        agreement.append(_point(bucket, bucket.agreement, bucket.interval, text))
    series = [("estimated", "Estimated accuracy", estimated), ("agreement", "Agreement", agreement)]
    changes = [(change.at, change.model) for change in trend.changes]
    return timeline(Span(trend.start, trend.end), series, changes)


def trend_text(trend: Trend) -> str:
    """Describe the chart in one sentence, for screen readers."""
    compared = [bucket for bucket in trend.buckets if bucket.agreement is not None]
    if not compared:
        return "Nothing was compared in this time."
    first, last = compared[0], compared[-1]
    return (
        f"Agreement went from {share(first.agreement, first.comparisons)} ({moment(first.start)})"
        f" to {share(last.agreement, last.comparisons)} ({moment(last.start)})."
    )


def _point(bucket: TimeBucket, value: float | None, interval: Interval | None, text: str) -> Point:
    return Point(
        bucket.start + (bucket.end - bucket.start) / 2,
        value,
        interval.low if interval else None,
        interval.high if interval else None,
        f"{moment(bucket.start)}: {text}",
    )
