"""The most recent photos, each with its count beside what was expected of its bin."""

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
    """One photo as one model counted it, or why it could not, and the last comparison that it took part in."""

    id: int
    bucket: str
    bin_id: str
    key: str
    model: str
    recorded_at: datetime
    reason: str | None
    detail: str | None
    predicted: int | None
    """Index of the class, 0 to 6; None if it was not counted."""
    count: str | None
    """In words: "3", "more than 5", "about 17"; None if it was not counted."""
    confidence: float | None
    expected: int | None
    """None while it has not been compared."""
    difference: int | None
    """Count − expected quantity in items; of an open-ended count at least so many."""
    difference_in_words: str | None
    outcome: Outcome | None
    unread: str | None
    """Why the bin's metadata file gives no expected quantity."""
    replaced: bool
    """Another photo has been stored under its key since."""
    can_be_shown: bool
    """The photo itself is there and sound, counted or not, as far as the records know."""


def read_latest(connection: Connection, limit: int) -> list[CountedPhoto]:
    """The `limit` photos that were recorded last, the newest first."""
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
    compared = last_comparisons(connection, [row["id"] for row in rows])
    return [_photo(row, compared.get(row["id"])) for row in rows]


def last_comparisons(connection: Connection, counts: Sequence[int]) -> dict[int, RowMapping]:
    """Count id → its last comparison: a corrected expected quantity has appended another.

    What its bin comes to now is the last one in any case: a quantity that was expected before holds again.
    """
    is_current = and_(
        CurrentComparison.bin_id == Comparison.bin_id,
        CurrentComparison.bucket == Comparison.bucket,
        CurrentComparison.comparison_id == Comparison.id,
    )
    statement = (
        select(Comparison.count_id, Comparison.expected, Comparison.outcome)
        .outerjoin(CurrentComparison, is_current)
        .where(Comparison.count_id.in_(counts))
        .order_by(CurrentComparison.comparison_id.is_not(None), Comparison.id)
    )
    return {row["count_id"]: row for row in connection.execute(statement).mappings()}


def count_of(row: RowMapping) -> str | None:
    """The count of a photo in words, of its columns `predicted` and `distribution`; None if it was not counted."""
    predicted = row["predicted"]
    return (
        None if predicted is None else describe_count(predicted, estimate_large_count(predicted, row["distribution"]))
    )


def _photo(row: RowMapping, compared: RowMapping | None) -> CountedPhoto:
    predicted, probabilities = row["predicted"], row["probabilities"]
    counted, expected = predicted is not None, compared["expected"] if compared else None
    finer = estimate_large_count(predicted, row["distribution"]) if counted else None
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
        count=count_of(row),
        confidence=probabilities[predicted] if counted and probabilities else None,
        expected=expected,
        difference=difference,
        difference_in_words=None if expected is None else describe_difference(predicted, expected, finer),
        outcome=None if difference is None else outcome_of_difference(difference),
        unread=row["unread"],
        replaced=row["replaced"],
        can_be_shown=can_be_shown(row["reason"], row["version_id"], replaced=row["replaced"]),
    )
