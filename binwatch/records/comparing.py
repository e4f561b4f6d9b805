"""Counts beside expected quantities, in the ledger, in the sums, and as what a bin is now.

Each pair of count and quantity is compared once: what an inventory repeats every night is no further evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select, tuple_

from binwatch.conformal import Judgement, judge
from binwatch.confusion import TruthSource
from binwatch.counts import class_of, error_of, outcome_of
from binwatch.records.bins import BinKey
from binwatch.records.current import Compared, refresh
from binwatch.records.hours import comparison_hours
from binwatch.records.models import Calibrated, Calibrations
from binwatch.records.tables import (
    Bin,
    Comparison,
    ComparisonHour,
    ConfusionTotal,
    Count,
    Expectation,
)
from binwatch.records.writing import Row, add_to_totals, insert_new, summed


def compare(connection: Connection, keys: Sequence[BinKey], calibrations: Calibrations, now: datetime) -> None:
    """Compare what these bins point at, but for pairs of count and quantity that were compared before.

    The caller holds the locks on the bins, so nobody else compares their counts.
    """
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
            Count.distribution,
            Expectation.quantity,
        )
        .join(Count, Count.id == Bin.count_id)
        .join(Expectation, Expectation.id == Bin.expectation_id)
        .where(tuple_(Bin.bucket, Bin.bin_id).in_(keys), Count.reason.is_(None), Expectation.reason.is_(None))
        .order_by(Bin.bucket, Bin.bin_id)
    )
    pairs = [dict(row) for row in connection.execute(statement).mappings()]
    calibrated = calibrations.of(connection, {pair["model_version"] for pair in pairs}) if pairs else {}
    judged = [_judge(pair, calibrated.get(pair["model_version"])) for pair in pairs]
    compared = _compared_before(connection, pairs)
    first = [
        _comparison(pair, judgement, now)
        for pair, judgement in zip(pairs, judged, strict=True)
        if (pair["count_id"], pair["quantity"]) not in compared
    ]
    if first:
        new = insert_new(connection, Comparison, first)
        add_to_totals(connection, ConfusionTotal, _confusion(new, now))
        add_to_totals(connection, ComparisonHour, comparison_hours(new, now))
        compared |= _by_pair(new)
    numbers = {version: one.number for version, one in calibrated.items()}
    rows = [
        Compared(pair, compared[pair["count_id"], pair["quantity"]], judgement, numbers.get(pair["model_version"], 0))
        for pair, judgement in zip(pairs, judged, strict=True)
    ]
    refresh(connection, keys, rows, now)


def confusion(reference: TruthSource, model: str, true_class: int, predicted: int, weight: int = 1) -> Row:
    """What one comparison adds to `confusion_totals`; with weight −1, what it takes back."""
    return {
        "reference": reference.value,
        "model_version": model,
        "true_class": true_class,
        "predicted_class": predicted,
        "comparisons": weight,
    }


CONFUSION_LABELS = ("reference", "model_version", "true_class", "predicted_class")


def _compared_before(connection: Connection, pairs: Sequence[Row]) -> dict[tuple[int, int], Row]:
    """Count id and quantity → their comparison. Earlier releases made several; the last one is what bins point at."""
    counts = [pair["count_id"] for pair in pairs]
    statement = select(Comparison.__table__).where(Comparison.count_id.in_(counts)).order_by(Comparison.id)
    return _by_pair([dict(row) for row in connection.execute(statement).mappings()]) if counts else {}


def _by_pair(comparisons: Sequence[Row]) -> dict[tuple[int, int], Row]:
    return {(row["count_id"], row["expected"]): row for row in comparisons}


def _judge(pair: Row, calibrated: Calibrated | None) -> Judgement:
    values = calibrated.values if calibrated else None
    return judge(pair["probabilities"], pair["quantity"], values, pair["distribution"])


def _comparison(pair: Row, judged: Judgement, now: datetime) -> Row:
    quantity = pair["quantity"]
    shared = ("bucket", "bin_id", "count_id", "expectation_id", "model_version", "predicted")
    return {name: pair[name] for name in shared} | {
        "expected": quantity,
        "error": error_of(pair["predicted"], quantity),
        "outcome": outcome_of(pair["predicted"], quantity),
        "chance": judged.chance,
        "p_value": judged.either,
        "p_missing": judged.missing,
        "p_surplus": judged.surplus,
        "compared_at": now,
    }


def _confusion(new: Sequence[Row], now: datetime) -> list[Row]:
    found = (
        confusion(TruthSource.INVENTORY, row["model_version"], class_of(row["expected"]), row["predicted"])
        for row in new
    )
    return summed(CONFUSION_LABELS, now, found)
