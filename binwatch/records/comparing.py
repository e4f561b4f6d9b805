"""Counts beside expected quantities: each pair once, in the ledger, in the sums, and as what its bin is now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, select, tuple_

from binwatch.conformal import PValues, oddness
from binwatch.counts import class_of, error_of, outcome_of
from binwatch.records.bins import BinKey
from binwatch.records.current import refresh
from binwatch.records.hours import comparison_hours
from binwatch.records.models import Calibrations
from binwatch.records.tables import (
    Bin,
    Comparison,
    ComparisonHour,
    ComparisonTotal,
    ConfusionTotal,
    Count,
    Expectation,
)
from binwatch.records.writing import Row, add_to_totals, errors_of, insert_new, summed


class Against(StrEnum):
    """Who says what a photo should show: the subjects of `confusion_totals`."""

    INVENTORY = "inventory"
    AUDIT = "audit"


def compare(connection: Connection, keys: Sequence[BinKey], calibrations: Calibrations, now: datetime) -> None:
    """Compare what these bins point at. The caller holds the locks on them; pairs compared before are not again."""
    statement = (
        select(
            Bin.bucket,
            Bin.bin_id,
            Bin.count_id,
            Bin.expectation_id,
            Count.model_version,
            Count.key,
            Count.etag,
            Count.modified_at.label("photo_at"),
            Count.predicted,
            Count.probabilities,
            Expectation.quantity,
        )
        .join(Count, Count.id == Bin.count_id)
        .join(Expectation, Expectation.id == Bin.expectation_id)
        .where(tuple_(Bin.bucket, Bin.bin_id).in_(keys), Count.reason.is_(None), Expectation.reason.is_(None))
        .order_by(Bin.bucket, Bin.bin_id)
    )
    pairs = [dict(row) for row in connection.execute(statement).mappings()]
    if pairs:
        values = calibrations.of(connection, {pair["model_version"] for pair in pairs})
        rows = [_comparison(pair, values.get(pair["model_version"]), now) for pair in pairs]
        new = insert_new(connection, Comparison, rows)
        add_to_totals(connection, ComparisonTotal, _totals(new, now))
        add_to_totals(connection, ConfusionTotal, _confusion(new, now))
        add_to_totals(connection, ComparisonHour, comparison_hours(new, now))
    refresh(connection, keys, pairs, now)


def confusion(against: Against, model: str, true_class: int, predicted: int) -> Row:
    """What one judged count adds to `confusion_totals`."""
    return {
        "subject": against.value,
        "model_version": model,
        "true_class": true_class,
        "predicted": predicted,
        "comparisons": 1,
    }


CONFUSION_LABELS = ("subject", "model_version", "true_class", "predicted")


def _comparison(pair: Row, values: PValues | None, now: datetime) -> Row:
    quantity = pair["quantity"]
    chance, p_value = oddness(pair["probabilities"], quantity, values)
    shared = ("bucket", "bin_id", "count_id", "expectation_id", "model_version", "predicted")
    return {name: pair[name] for name in shared} | {
        "expected": quantity,
        "error": error_of(pair["predicted"], quantity),
        "outcome": outcome_of(pair["predicted"], quantity),
        "chance": chance,
        "p_value": p_value,
        "compared_at": now,
    }


def _totals(new: Sequence[Row], now: datetime) -> list[Row]:
    return summed(
        ("model_version", "expected_class", "outcome"),
        now,
        (
            {
                "model_version": row["model_version"],
                "expected_class": class_of(row["expected"]),
                "outcome": row["outcome"],
                "comparisons": 1,
            }
            | errors_of(row["error"])
            for row in new
        ),
    )


def _confusion(new: Sequence[Row], now: datetime) -> list[Row]:
    found = (
        confusion(Against.INVENTORY, row["model_version"], class_of(row["expected"]), row["predicted"]) for row in new
    )
    return summed(CONFUSION_LABELS, now, found)
