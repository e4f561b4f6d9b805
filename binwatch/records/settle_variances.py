"""Settles variances in the database. Every writer holds the lock of the bin, so that no step is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, RowMapping, select, update

from binwatch.records.engine import WRITE
from binwatch.records.settlement import Row
from binwatch.records.tables import Bin, Variance, VarianceEntry, VarianceTotal
from binwatch.records.totals import add_to_totals
from binwatch.records.upsert import insert_into
from binwatch.records.variances import (
    TrailEntry,
    UnknownVariance,
    VarianceConflict,
    VarianceDecision,
    VarianceState,
    VarianceStep,
    VarianceTolerance,
    check_decision,
    is_recount,
    standing_of,
)


@dataclass(frozen=True, slots=True)
class DecidedVariance:
    """A variance after a decision."""

    id: int
    bucket: str
    bin_id: str
    state: VarianceState
    expected: int
    quantity: int | None
    """Approved number of items; for a rejected variance, the number that most people found, or None."""


def note_count(
    connection: Connection, audit: Row, expected: int | None, tolerance: VarianceTolerance, now: datetime
) -> list[Row]:
    """Open a variance for an audit that found a number of items, or take it as a recount. The bin is locked.

    `audit` is its row, with the `id`; `expected` what the inventory expects. Returns what it adds to `variance_totals`.
    """
    of_bin = (Variance.bucket == audit["bucket"], Variance.bin_id == audit["bin_id"])
    last = select(Variance.__table__).where(*of_bin).order_by(Variance.id.desc()).limit(1)
    variance = connection.execute(last).mappings().one_or_none()
    entry = TrailEntry(VarianceStep.COUNTED, audit["quantity"], audit["auditor"])
    if variance and variance["closed_at"] is None:
        trail = _trail(connection, variance["id"])
        if not is_recount(trail, audit["auditor"], blind=audit["blind"]):
            return []
        _append(connection, variance["id"], entry, now, audit_id=audit["id"])
        return _settle(connection, variance, [*trail, entry], now)
    if (
        expected is None
        or not tolerance.is_exceeded(expected, audit["quantity"])
        or _is_known(variance, audit, expected)
    ):
        return []
    row = {"bucket": audit["bucket"], "bin_id": audit["bin_id"], "expected": expected, "opened_at": now}
    _append(connection, _open(connection, row)["id"], entry, now, audit_id=audit["id"])
    return [{"state": VarianceState.OPEN.value, "variances": 1}]


def _open(connection: Connection, row: Row) -> RowMapping:
    statement = insert_into(connection, Variance).values(**row, state=VarianceState.OPEN.value)
    return connection.execute(statement.returning(*Variance.__table__.c)).mappings().one()


def _is_known(last: RowMapping | None, audit: Row, expected: int) -> bool:
    """Whether this difference was approved before, and the inventory has not been corrected yet."""
    approved = (VarianceState.APPROVED, expected, audit["quantity"])
    return last is not None and (last["state"], last["expected"], last["quantity"]) == approved


def supersede(connection: Connection, corrected: Sequence[tuple[RowMapping, int]], now: datetime) -> list[Row]:
    """Close variances whose expected quantity has been corrected; their bins are locked.

    Each comes with the quantity that is expected now. Returns what it adds to `variance_totals`.
    """
    changes: list[Row] = []
    for variance, expected in corrected:
        entry = TrailEntry(VarianceStep.SUPERSEDED, expected)
        trail = _trail(connection, variance["id"])
        _append(connection, variance["id"], entry, now)
        changes += _settle(connection, variance, [*trail, entry], now)
    return changes


@dataclass(frozen=True, slots=True)
class PastStep:
    """A step of a variance of other records, or of before a loss."""

    entry: TrailEntry
    at: datetime
    note: str | None = None
    audit_id: int | None = None
    """Of a count: the audit as it is recorded here."""


def restore(connection: Connection, opened: Row, steps: Sequence[PastStep], expected_now: int | None) -> int:
    """Record the steps of a variance that are not recorded here; returns how many. The bin is locked.

    `opened` has its `bucket`, `bin_id`, `expected` and `opened_at`; `steps` are all of its steps, which follow on each
    other (variances.check_trail). If it is undecided, and `expected_now` another quantity, it is superseded at once.
    Raises VarianceConflict if it has other steps here, or the bin a variance that is later, or undecided.
    """
    of_bin = select(Variance.__table__).where(Variance.bucket == opened["bucket"], Variance.bin_id == opened["bin_id"])
    this = of_bin.where(Variance.opened_at == opened["opened_at"])
    was, changes = connection.execute(this).mappings().one_or_none(), list[Row]()
    here, there = _dated_trail(connection, was["id"]) if was else [], [(step.entry, step.at) for step in steps]
    if here and here[: len(there)] == there:
        return 0
    if here != there[: len(here)]:
        raise VarianceConflict("the variance has other steps here")
    if was is None:
        last = connection.execute(of_bin.order_by(Variance.id.desc()).limit(1)).mappings().one_or_none()
        if last and (last["closed_at"] is None or last["opened_at"] > opened["opened_at"]):
            raise VarianceConflict("the bin has another variance here, which is later or undecided")
        was = _open(connection, opened)
        changes.append({"state": was["state"], "variances": 1})
    for step in steps[len(here) :]:
        _append(connection, was["id"], step.entry, step.at, audit_id=step.audit_id, note=step.note)
    changes += _settle(connection, was, [step.entry for step in steps], steps[-1].at)
    add_to_totals(connection, VarianceTotal, changes, steps[-1].at)
    now, is_now = datetime.now(UTC), connection.execute(this).mappings().one()
    if is_now["closed_at"] is None and expected_now not in (None, opened["expected"]):
        add_to_totals(connection, VarianceTotal, supersede(connection, [(is_now, expected_now)], now), now)
    return len(there) - len(here)


def decide(
    engine: Engine,
    variance_id: int,
    decision: VarianceDecision,
    person: str,
    note: str | None,
    quantity: int | None = None,
) -> DecidedVariance:
    """Approve the number of a variance that most people found (`quantity`), or reject the variance.

    Raises UnknownVariance, OwnCount or VarianceConflict.
    """
    now = datetime.now(UTC)
    of_variance = select(Variance.__table__).where(Variance.id == variance_id)
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        found = connection.execute(of_variance).mappings().one_or_none()
        if found is None:
            raise UnknownVariance(f"there is no variance {variance_id}")
        of_bin = (Bin.bucket == found["bucket"], Bin.bin_id == found["bin_id"])
        connection.execute(select(Bin.bin_id).where(*of_bin).with_for_update())
        variance = connection.execute(of_variance).mappings().one()
        trail = _trail(connection, variance_id)
        check_decision(trail, decision, person, quantity, variance["expected"])
        entry = TrailEntry(VarianceStep(decision), quantity if decision is VarianceDecision.APPROVED else None, person)
        _append(connection, variance_id, entry, now, note=note)
        add_to_totals(connection, VarianceTotal, _settle(connection, variance, [*trail, entry], now), now)
    standing = standing_of([*trail, entry])
    of = {name: variance[name] for name in ("id", "bucket", "bin_id", "expected")}
    return DecidedVariance(**of, state=standing.state, quantity=standing.quantity)


def _trail(connection: Connection, variance_id: int) -> list[TrailEntry]:
    return [entry for entry, _ in _dated_trail(connection, variance_id)]


def _dated_trail(connection: Connection, variance_id: int) -> list[tuple[TrailEntry, datetime]]:
    columns = (VarianceEntry.step, VarianceEntry.quantity, VarianceEntry.person, VarianceEntry.at)
    statement = select(*columns).where(VarianceEntry.variance_id == variance_id).order_by(VarianceEntry.id)
    rows = connection.execute(statement)
    return [(TrailEntry(VarianceStep(step), quantity, person), at) for step, quantity, person, at in rows]


def _append(
    connection: Connection,
    variance_id: int,
    entry: TrailEntry,
    now: datetime,
    *,
    audit_id: int | None = None,
    note: str | None = None,
) -> None:
    row = {"step": entry.step.value, "quantity": entry.quantity, "person": entry.person, "note": note}
    statement = insert_into(connection, VarianceEntry)
    connection.execute(statement, [row | {"variance_id": variance_id, "audit_id": audit_id, "at": now}])


def _settle(connection: Connection, was: RowMapping, trail: Sequence[TrailEntry], now: datetime) -> list[Row]:
    standing = standing_of(trail)
    closed_at = now if standing.state.is_closed else None
    values = {"state": standing.state.value, "quantity": standing.quantity, "closed_at": closed_at}
    connection.execute(update(Variance).where(Variance.id == was["id"]).values(values))
    return [{"state": was["state"], "variances": -1}, {"state": standing.state.value, "variances": 1}]
