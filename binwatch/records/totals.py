"""Running totals of the ledgers, so that neither a scrape nor a page scans a ledger."""

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


def add_to_totals(connection: Connection, table: type[Base], rows: Iterable[Row], now: datetime) -> None:
    """Add each row to the total with the same labels (the primary key), which is created if missing.

    Call it last in a transaction: all writers lock the totals, in the order of their labels.
    """
    columns = table.__table__.c
    labels = tuple(column.name for column in columns if column.primary_key)
    sums = _sum_by_labels(labels, rows)
    if not sums:
        return
    insert = insert_into(connection, table)
    sum_columns = {name: columns[name] + insert.excluded[name] for name in sums[0] if name not in labels}
    # Imported rows may be older than the total's last row.
    last_at = case((columns.last_at > insert.excluded.last_at, columns.last_at), else_=insert.excluded.last_at)
    statement = insert.on_conflict_do_update(index_elements=labels, set_=sum_columns | {"last_at": last_at})
    connection.execute(statement, [row | {"last_at": now} for row in sums])


def _sum_by_labels(labels: tuple[str, ...], rows: Iterable[Row]) -> list[Row]:
    """Sum the rows with equal labels; returns the sums in the order of their labels."""
    sums: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[label] for label in labels)
        total = sums.setdefault(key, {name: row[name] if name in labels else 0 for name in row})
        for name in row.keys() - set(labels):
            total[name] += row[name]
    return [sums[key] for key in sorted(sums)]


def photo_totals(counts: Iterable[Row]) -> list[Row]:
    """Return the rows that new counts and failures add to `photo_totals`."""
    return [{"model_version": row["model_version"], "reason": row["reason"] or "", "photos": 1} for row in counts]


def slice_photo_totals(counts: Iterable[Row]) -> list[Row]:
    """Return the rows that new counts and failures with a slice add to `slice_photo_totals`."""
    in_slices = [row for row in counts if row["slice_id"] is not None]
    totals = photo_totals(in_slices)
    return [total | {"slice_id": row["slice_id"]} for row, total in zip(in_slices, totals, strict=True)]


def photo_hours(counts: Iterable[Row], now: datetime) -> list[Row]:
    """Return the rows that new counts add to `photo_hours`. Failures add none."""
    return [
        {
            "hour": start_of_hour(now),
            "model_version": row["model_version"],
            "tenth": min(int(row["probabilities"][row["predicted"]] * 10), 9),
            "photos": 1,
            "confidence": row["probabilities"][row["predicted"]],
        }
        for row in counts
        if row["reason"] is None and row["probabilities"]
    ]


def expectation_totals(expectations: Iterable[Row]) -> list[Row]:
    """Return the rows that new expected quantities add to `expectation_totals`."""
    return [{"reason": row["reason"] or "", "expectations": 1} for row in expectations]


def confusion_totals(comparisons: Iterable[Row]) -> list[Row]:
    """Return the rows that new comparisons add to `confusion_totals`."""
    return [
        confusion_row(TruthSource.INVENTORY, row["model_version"], class_of(row["expected"]), row["predicted"])
        for row in comparisons
    ]


def slice_confusion_totals(settlements: Iterable[Settlement]) -> list[Row]:
    """Return the rows that new comparisons of photos with a slice add to `slice_confusion_totals`."""
    return [
        {
            "slice_id": item.facts.photo.slice_id,
            "model_version": item.comparison["model_version"],
            "true_class": class_of(item.comparison["expected"]),
            "predicted_class": item.comparison["predicted"],
            "comparisons": 1,
        }
        for item in settlements
        if item.comparison and item.facts.photo and item.facts.photo.slice_id is not None
    ]


def confusion_row(reference: TruthSource, model: str, true_class: int, predicted: int, weight: int = 1) -> Row:
    """Return the row that one comparison adds to `confusion_totals`, or subtracts with weight −1."""
    return {
        "reference": reference.value,
        "model_version": model,
        "true_class": true_class,
        "predicted_class": predicted,
        "comparisons": weight,
    }


def comparison_hours(comparisons: Iterable[Row], now: datetime) -> list[Row]:
    """Return the rows that new comparisons add to `comparison_hours`."""
    hour = start_of_hour(now)
    return [
        {"hour": hour, "model_version": row["model_version"], "outcome": row["outcome"], "comparisons": 1}
        for row in comparisons
    ]


def bin_totals(settlements: Iterable[Settlement]) -> Iterator[Row]:
    """Yield the rows that move bins between the states of `bin_totals`."""
    for item in settlements:
        for states, bins in ((item.facts.states, -1), (item.states, 1)):
            if states is not None and item.states != item.facts.states:
                yield {"photo_state": states[0].value, "quantity_state": states[1].value, "bins": bins}


def rank_totals(settlements: Iterable[Settlement]) -> Iterator[Row]:
    """Yield the rows that move bins between the kinds of `rank_totals`, or out of them."""
    for item in settlements:
        previous = item.facts.listed.ranked if item.facts.listed else None
        for kind, bins in ((previous, -1), (item.ranked, 1)):
            if kind is not None and previous != item.ranked:
                yield {"kind": kind.value, "bins": bins}


def start_of_hour(time: datetime) -> datetime:
    """Return the start of the hour."""
    return time.replace(minute=0, second=0, microsecond=0)
