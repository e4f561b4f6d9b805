"""Sums by the hour, so that a line over months costs a page no more than its hours."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from binwatch.records.writing import Row, summed

TENTHS = 10


def hour_of(at: datetime) -> datetime:
    """Beginning of the hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def comparison_hours(new: Iterable[Row], now: datetime) -> list[Row]:
    """What new comparisons add to `comparison_hours`."""
    labels = ("hour", "model_version", "outcome")
    return summed(
        labels,
        now,
        (
            {"hour": hour_of(now), "model_version": row["model_version"], "outcome": row["outcome"], "comparisons": 1}
            for row in new
        ),
    )


def photo_hours(new: Iterable[Row], now: datetime) -> list[Row]:
    """What new counts add to `photo_hours`; photos that were not counted add nothing."""
    return summed(
        ("hour", "model_version", "tenth"),
        now,
        (
            {
                "hour": hour_of(now),
                "model_version": row["model_version"],
                "tenth": min(int(max(row["probabilities"]) * TENTHS), TENTHS - 1),
                "photos": 1,
                "confidence": max(row["probabilities"]),
            }
            for row in new
            if row["reason"] is None and row["probabilities"]
        ),
    )
