"""The totals: running sums of the ledgers, so that a scrape or a page never scans a ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case

from binwatch.confusion import TruthSource
from binwatch.counts import class_of
from binwatch.records.settlement import Row, Settlement
from binwatch.records.tables import Base
from binwatch.records.upsert import insert_into

TENTHS = 10


def add_to_totals(connection: Connection, table: type[Base], rows: Iterable[Row], now: datetime) -> None:
    """Add each row to the total with the same labels (the primary key), which is created if it is missing.

    Totals are written last and in the order of their labels, since all writers lock them.
    """
    columns = table.__table__.c
    labels = tuple(column.name for column in columns if column.primary_key)
    sums = _summed(labels, rows)
    if not sums:
        return
    insert = insert_into(connection, table)
    added = {name: columns[name] + insert.excluded[name] for name in sums[0] if name not in labels}
    # Imported rows may be older than the total's last row.
    last = case((columns.last_at > insert.excluded.last_at, columns.last_at), else_=insert.excluded.last_at)
    statement = insert.on_conflict_do_update(index_elements=labels, set_=added | {"last_at": last})
    connection.execute(statement, [row | {"last_at": now} for row in sums])


def _summed(labels: tuple[str, ...], rows: Iterable[Row]) -> list[Row]:
    """Sum the rows with equal labels, in the order of the labels."""
    sums: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[label] for label in labels)
        total = sums.setdefault(key, {name: row[name] if name in labels else 0 for name in row})
        for name in row.keys() - set(labels):
            total[name] += row[name]
    return [sums[key] for key in sorted(sums)]


def photo_totals(counts: Iterable[Row]) -> list[Row]:
    """Rows that new counts and failures add to `photo_totals`."""
    return [{"model_version": row["model_version"], "reason": row["reason"] or "", "photos": 1} for row in counts]


def slice_photo_totals(counts: Iterable[Row]) -> list[Row]:
    """Rows that new counts and failures with a slice add to `slice_photo_totals`."""
    found = [row for row in counts if row["slice_id"] is not None]
    slices = (row["slice_id"] for row in found)
    return [{"slice_id": of, **row} for of, row in zip(slices, photo_totals(found), strict=True)]


def photo_hours(counts: Iterable[Row], now: datetime) -> list[Row]:
    """Rows that new counts add to `photo_hours`; failures add none."""
    return [
        {
            "hour": hour_of(now),
            "model_version": row["model_version"],
            "tenth": min(int(row["probabilities"][row["predicted"]] * TENTHS), TENTHS - 1),
            "photos": 1,
            "confidence": row["probabilities"][row["predicted"]],
        }
        for row in counts
        if row["reason"] is None and row["probabilities"]
    ]


def expectation_totals(expectations: Iterable[Row]) -> list[Row]:
    """Rows that new expected quantities add to `expectation_totals`."""
    return [{"reason": row["reason"] or "", "expectations": 1} for row in expectations]


def confusions(comparisons: Iterable[Row]) -> list[Row]:
    """Rows that new comparisons add to `confusion_totals`."""
    return [
        confusion(TruthSource.INVENTORY, row["model_version"], class_of(row["expected"]), row["predicted"])
        for row in comparisons
    ]


def slice_confusions(settlements: Iterable[Settlement]) -> list[Row]:
    """Rows that new comparisons of photos with a slice add to `slice_confusion_totals`."""
    return [
        {
            "slice_id": one.facts.photo.slice_id,
            "model_version": one.comparison["model_version"],
            "true_class": class_of(one.comparison["expected"]),
            "predicted_class": one.comparison["predicted"],
            "comparisons": 1,
        }
        for one in settlements
        if one.comparison and one.facts.photo and one.facts.photo.slice_id is not None
    ]


def confusion(reference: TruthSource, model: str, true_class: int, predicted: int, weight: int = 1) -> Row:
    """The row that one comparison adds to `confusion_totals`, or with weight −1 subtracts."""
    return {
        "reference": reference.value,
        "model_version": model,
        "true_class": true_class,
        "predicted_class": predicted,
        "comparisons": weight,
    }


def comparison_hours(comparisons: Iterable[Row], now: datetime) -> list[Row]:
    """Rows that new comparisons add to `comparison_hours`."""
    hour = hour_of(now)
    return [
        {"hour": hour, "model_version": row["model_version"], "outcome": row["outcome"], "comparisons": 1}
        for row in comparisons
    ]


def bin_totals(settlements: Iterable[Settlement]) -> Iterator[Row]:
    """Rows that move bins from one row of `bin_totals` to another."""
    for one in settlements:
        for states, bins in ((one.facts.states, -1), (one.states, 1)):
            if states is not None and one.states != one.facts.states:
                yield {"photo_state": states[0].value, "quantity_state": states[1].value, "bins": bins}


def rank_totals(settlements: Iterable[Settlement]) -> Iterator[Row]:
    """Rows that move bins from one row of `rank_totals` to another, or to none."""
    for one in settlements:
        before = one.facts.listed.ranked if one.facts.listed else None
        for ranked, bins in ((before, -1), (one.ranked, 1)):
            if ranked is not None and before != one.ranked:
                yield {"kind": ranked.value, "bins": bins}


def hour_of(at: datetime) -> datetime:
    """Start of the hour."""
    return at.replace(minute=0, second=0, microsecond=0)
