"""The latest photos, each with its count and the expected quantity of its bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, and_, select

from binwatch.counts import (
    Outcome,
    describe_count,
    describe_difference,
    estimate_large_count,
    item_difference,
    outcome_of_difference,
)
from binwatch.records.tables import Bin, Comparison, Count, CurrentComparison, Expectation
from monitor.photos import can_be_shown, was_replaced


@dataclass(frozen=True, slots=True)
class CountedPhoto:
    """A photo with its count by one model, or the reason why there is none, and its latest comparison."""

    id: int
    bucket: str
    bin_id: str
    key: str
    model: str
    recorded_at: datetime
    reason: str | None
    detail: str | None
    predicted: int | None
    """Index of the class, 0 to 6; None if the photo was not counted."""
    count: str | None
    """The count as text: "3", "more than 5", "about 17"; None if the photo was not counted."""
    confidence: float | None
    expected: int | None
    """Expected quantity; None if the photo has not been compared."""
    difference: int | None
    """Count − expected quantity in items; a lower bound if the count is open-ended."""
    difference_in_words: str | None
    outcome: Outcome | None
    unread: str | None
    """Why the bin's metadata file has no expected quantity; None if it has one, or there is no file."""
    replaced: bool
    """Whether another photo has been stored under its key since."""
    can_be_shown: bool
    """Whether, by the records, the photo still exists and can be decoded."""


def read_latest(connection: Connection, limit: int) -> list[CountedPhoto]:
    """Read the latest `limit` photos, the newest first."""
    latest = Count.__table__.alias("latest")
    statement = (
        select(*Count.__table__.c, Expectation.reason.label("unread"), was_replaced(latest).label("replaced"))
        .select_from(Count)
        .outerjoin(Bin, and_(Bin.bucket == Count.bucket, Bin.bin_id == Count.bin_id))
        .outerjoin(latest, latest.c.id == Bin.count_id)
        .outerjoin(Expectation, Expectation.id == Bin.expectation_id)
        .order_by(Count.id.desc())
        .limit(limit)
    )
    rows = connection.execute(statement).mappings().all()
    comparisons = latest_comparisons(connection, [row["id"] for row in rows])
    return [_make_photo(row, comparisons.get(row["id"])) for row in rows]


def latest_comparisons(connection: Connection, count_ids: Sequence[int]) -> dict[int, RowMapping]:
    """Map each compared count to its latest comparison. A corrected expected quantity appends another comparison.

    The bin's current comparison is preferred: it may be an older one, if an earlier expected quantity holds again.
    """
    is_current = and_(
        CurrentComparison.bin_id == Comparison.bin_id,
        CurrentComparison.bucket == Comparison.bucket,
        CurrentComparison.comparison_id == Comparison.id,
    )
    statement = (
        select(Comparison.count_id, Comparison.expected, Comparison.outcome)
        .outerjoin(CurrentComparison, is_current)
        .where(Comparison.count_id.in_(count_ids))
        .order_by(CurrentComparison.comparison_id.is_not(None), Comparison.id)
    )
    return {row["count_id"]: row for row in connection.execute(statement).mappings()}


def count_text(row: RowMapping) -> str | None:
    """Format the count in the columns `predicted` and `distribution`; None if the photo was not counted."""
    predicted = row["predicted"]
    return (
        None if predicted is None else describe_count(predicted, estimate_large_count(predicted, row["distribution"]))
    )


def _make_photo(row: RowMapping, comparison: RowMapping | None) -> CountedPhoto:
    predicted, probabilities = row["predicted"], row["probabilities"]
    is_counted, expected = predicted is not None, comparison["expected"] if comparison else None
    finer = estimate_large_count(predicted, row["distribution"]) if is_counted else None
    difference = None if expected is None else item_difference(predicted, expected, finer)
    return CountedPhoto(
        id=row["id"],
        bucket=row["bucket"],
        bin_id=row["bin_id"],
        key=row["key"],
        model=row["model_version"],
        recorded_at=row["recorded_at"],
        reason=row["reason"],
        detail=row["detail"],
        predicted=predicted,
        count=count_text(row),
        confidence=probabilities[predicted] if is_counted and probabilities else None,
        expected=expected,
        difference=difference,
        difference_in_words=None if expected is None else describe_difference(predicted, expected, finer),
        outcome=None if difference is None else outcome_of_difference(difference),
        unread=row["unread"],
        replaced=row["replaced"],
        can_be_shown=can_be_shown(row["reason"], row["version_id"], replaced=row["replaced"]),
    )
