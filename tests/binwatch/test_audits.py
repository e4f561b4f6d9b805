"""Audits: appended, judged against what was there at that moment, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, func, select

from binwatch.counts import Outcome
from binwatch.errors import Reason
from binwatch.records.audits import Subject, UnknownBin, add_audit
from binwatch.records.bins import PhotoState, QuantityState
from binwatch.records.store import NewCount, NewExpectation, Store
from binwatch.records.tables import Audit, AuditTotal, Bin, BinTotal

START = datetime(2026, 11, 20, tzinfo=UTC)


def _count(bin_id: str, predicted: int | None, minutes: int = 0) -> NewCount:
    return NewCount(
        bucket="bins",
        key=f"bin-images/{bin_id}.jpg",
        etag=f"{minutes}",
        model_version="v1",
        precision="int8",
        provider="CPUExecutionProvider",
        modified_at=START + timedelta(minutes=minutes),
        predicted=predicted,
        reason=Reason.CORRUPT if predicted is None else None,
    )


def _expectation(bin_id: str, quantity: int) -> NewExpectation:
    return NewExpectation(bucket="bins", bin_id=bin_id, source="x.json", etag="e", modified_at=START, quantity=quantity)


def _totals(engine: Engine) -> dict[tuple[str, str, int, str], tuple[int, int]]:
    with engine.connect() as connection:
        rows = connection.execute(select(AuditTotal.__table__)).mappings()
        return {
            (row["subject"], row["model_version"], row["audited_class"], row["outcome"]): (
                row["audits"],
                row["absolute_error"],
            )
            for row in rows
        }


def test_an_audit_judges_the_count_and_the_inventory(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("a", 6)])
    store.add_expectations([_expectation("a", 40)])
    audited = add_audit(records_engine, "bins", "a", 5, "Ada")
    assert (audited.of_count, audited.of_inventory) == (Outcome.OVER, Outcome.OVER)
    add_audit(records_engine, "bins", "a", 90)
    assert _totals(records_engine) == {
        (Subject.COUNT, "v1", 5, Outcome.OVER): (1, 1),
        (Subject.COUNT, "v1", 6, Outcome.EXACT): (1, 0),
        (Subject.INVENTORY, "", 5, Outcome.OVER): (1, 1),
        (Subject.INVENTORY, "", 6, Outcome.EXACT): (1, 0),
    }
    with records_engine.connect() as connection:
        rows = connection.execute(select(Audit.auditor, Audit.quantity).order_by(Audit.id)).all()
    assert [tuple(row) for row in rows] == [("Ada", 5), (None, 90)]


def test_what_is_not_there_is_not_judged(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("failed", None)])
    store.add_expectations([_expectation("unseen", 2)])
    assert add_audit(records_engine, "bins", "failed", 1).of_count is None
    assert add_audit(records_engine, "bins", "unseen", 2).of_inventory is Outcome.EXACT
    assert _totals(records_engine) == {(Subject.INVENTORY, "", 2, Outcome.EXACT): (1, 0)}


def test_a_later_photo_leaves_the_audit_as_it_was(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("a", 2)])
    add_audit(records_engine, "bins", "a", 2)
    store.add_counts([_count("a", 5, minutes=1)])
    assert _totals(records_engine) == {(Subject.COUNT, "v1", 2, Outcome.EXACT): (1, 0)}


def test_unknown_bins_and_negative_quantities_are_refused(records_engine: Engine) -> None:
    with pytest.raises(UnknownBin, match="'nobody'"):
        add_audit(records_engine, "bins", "nobody", 1)
    with pytest.raises(ValueError, match="negative"):
        add_audit(records_engine, "bins", "nobody", -1)
    with records_engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(Audit)).scalar_one() == 0


def test_totals_of_bins_are_what_a_scan_finds(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("a", None), _count("b", 2), _count("c", 3)])
    store.add_expectations([_expectation("b", 2), _expectation("d", 1)])
    store.add_counts([_count("a", 4, minutes=1), _count("a", 4, minutes=1)])
    with records_engine.connect() as connection:
        scanned = connection.execute(
            select(Bin.photo_state, Bin.quantity_state, func.count()).group_by(Bin.photo_state, Bin.quantity_state)
        ).all()
        totals = connection.execute(
            select(BinTotal.photo_state, BinTotal.quantity_state, BinTotal.bins).where(BinTotal.bins != 0)
        ).all()
    found = {(PhotoState(photo), QuantityState(quantity)): bins for photo, quantity, bins in scanned}
    assert found == {
        (PhotoState.COUNTED, QuantityState.NONE): 2,
        (PhotoState.COUNTED, QuantityState.KNOWN): 1,
        (PhotoState.NONE, QuantityState.KNOWN): 1,
    }
    assert {tuple(row) for row in scanned} == {tuple(row) for row in totals}
