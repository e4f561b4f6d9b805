"""Writes variances to the database. Every writer holds the bin's lock, so that no step is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, RowMapping, select, update

from binwatch.records.engine import for_writing
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
    """Approved number of items; for a rejected variance, the agreed number or None (see `standing_of`)."""


def update_variance(
    connection: Connection, audit: Row, expected: int | None, tolerance: VarianceTolerance, now: datetime
) -> list[Row]:
    """Open a variance for an audit with an exact number, or add a recount to the bin's undecided one.

    `audit` is a row with its `id`; `expected` is the quantity that the inventory expects, None if there is none. The
    bin must be locked. Returns the changes of `variance_totals`.
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
        return _update_state(connection, variance, [*trail, entry], now)
    if (
        expected is None
        or not tolerance.is_exceeded(expected, audit["quantity"])
        or _is_approved(variance, audit, expected)
    ):
        return []
    row = {"bucket": audit["bucket"], "bin_id": audit["bin_id"], "expected": expected, "opened_at": now}
    _append(connection, _open(connection, row)["id"], entry, now, audit_id=audit["id"])
    return [{"state": VarianceState.OPEN.value, "variances": 1}]


def _open(connection: Connection, row: Row) -> RowMapping:
    statement = insert_into(connection, Variance).values(**row, state=VarianceState.OPEN.value)
    return connection.execute(statement.returning(*Variance.__table__.c)).mappings().one()


def _is_approved(last: RowMapping | None, audit: Row, expected: int) -> bool:
    """Return whether this difference was approved before, and the inventory merely has not been corrected yet."""
    approved = (VarianceState.APPROVED, expected, audit["quantity"])
    return last is not None and (last["state"], last["expected"], last["quantity"]) == approved


def supersede_variances(
    connection: Connection, corrected: Sequence[tuple[RowMapping, int]], now: datetime
) -> list[Row]:
    """Close variances whose expected quantity has been corrected. Their bins must be locked.

    `corrected` pairs each variance with the quantity that is expected now. Returns the changes of `variance_totals`.
    """
    changes: list[Row] = []
    for variance, expected in corrected:
        entry = TrailEntry(VarianceStep.SUPERSEDED, expected)
        trail = _trail(connection, variance["id"])
        _append(connection, variance["id"], entry, now)
        changes += _update_state(connection, variance, [*trail, entry], now)
    return changes


@dataclass(frozen=True, slots=True)
class PastStep:
    """A step of an imported variance."""

    entry: TrailEntry
    at: datetime
    note: str | None = None
    audit_id: int | None = None
    """Id of the audit in these records, if the step is a count."""


def import_variance(connection: Connection, opened: Row, steps: Sequence[PastStep], expected_now: int | None) -> int:
    """Record those steps of a variance that these records lack; returns how many. The bin must be locked.

    `opened` has `bucket`, `bin_id`, `expected` and `opened_at`. `steps` are all steps of the variance, which must have
    passed variances.check_trail. If the variance is undecided and `expected_now` is another quantity, the variance is
    also superseded. Raises VarianceConflict if it has other steps in these records, or if the bin has another variance
    in them that is later or undecided.
    """
    of_bin = select(Variance.__table__).where(Variance.bucket == opened["bucket"], Variance.bin_id == opened["bin_id"])
    of_variance = of_bin.where(Variance.opened_at == opened["opened_at"])
    variance, changes = connection.execute(of_variance).mappings().one_or_none(), list[Row]()
    recorded = _dated_trail(connection, variance["id"]) if variance else []
    imported = [(step.entry, step.at) for step in steps]
    if recorded and recorded[: len(imported)] == imported:
        return 0
    if recorded != imported[: len(recorded)]:
        raise VarianceConflict("the variance has other steps here")
    if variance is None:
        last = connection.execute(of_bin.order_by(Variance.id.desc()).limit(1)).mappings().one_or_none()
        if last and (last["closed_at"] is None or last["opened_at"] > opened["opened_at"]):
            raise VarianceConflict("the bin has another variance here, which is later or undecided")
        variance = _open(connection, opened)
        changes.append({"state": variance["state"], "variances": 1})
    for step in steps[len(recorded) :]:
        _append(connection, variance["id"], step.entry, step.at, audit_id=step.audit_id, note=step.note)
    changes += _update_state(connection, variance, [step.entry for step in steps], steps[-1].at)
    add_to_totals(connection, VarianceTotal, changes, steps[-1].at)
    now, variance = datetime.now(UTC), connection.execute(of_variance).mappings().one()
    if variance["closed_at"] is None and expected_now not in (None, opened["expected"]):
        superseded = supersede_variances(connection, [(variance, expected_now)], now)
        add_to_totals(connection, VarianceTotal, superseded, now)
    return len(imported) - len(recorded)


def decide(
    engine: Engine,
    variance_id: int,
    decision: VarianceDecision,
    person: str,
    note: str | None,
    quantity: int | None = None,
) -> DecidedVariance:
    """Approve the agreed number of a variance, which must be `quantity`, or reject the variance.

    Raises UnknownVariance, OwnCount or VarianceConflict.
    """
    now = datetime.now(UTC)
    of_variance = select(Variance.__table__).where(Variance.id == variance_id)
    with for_writing(engine).begin() as connection:
        unlocked = connection.execute(of_variance).mappings().one_or_none()
        if unlocked is None:
            raise UnknownVariance(f"there is no variance {variance_id}")
        of_bin = (Bin.bucket == unlocked["bucket"], Bin.bin_id == unlocked["bin_id"])
        connection.execute(select(Bin.bin_id).where(*of_bin).with_for_update())
        variance = connection.execute(of_variance).mappings().one()
        trail = _trail(connection, variance_id)
        check_decision(trail, decision, person, quantity, variance["expected"])
        entry = TrailEntry(VarianceStep(decision), quantity if decision is VarianceDecision.APPROVED else None, person)
        _append(connection, variance_id, entry, now, note=note)
        add_to_totals(connection, VarianceTotal, _update_state(connection, variance, [*trail, entry], now), now)
    standing = standing_of([*trail, entry])
    identity = {name: variance[name] for name in ("id", "bucket", "bin_id", "expected")}
    return DecidedVariance(**identity, state=standing.state, quantity=standing.quantity)


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
    time: datetime,
    *,
    audit_id: int | None = None,
    note: str | None = None,
) -> None:
    row = {"step": entry.step.value, "quantity": entry.quantity, "person": entry.person, "note": note}
    statement = insert_into(connection, VarianceEntry)
    connection.execute(statement, [row | {"variance_id": variance_id, "audit_id": audit_id, "at": time}])


def _update_state(
    connection: Connection, variance: RowMapping, trail: Sequence[TrailEntry], now: datetime
) -> list[Row]:
    """Set the state that follows from the trail; returns the changes of `variance_totals`."""
    standing = standing_of(trail)
    closed_at = now if standing.state.is_closed else None
    values = {"state": standing.state.value, "quantity": standing.quantity, "closed_at": closed_at}
    connection.execute(update(Variance).where(Variance.id == variance["id"]).values(values))
    return [{"state": variance["state"], "variances": -1}, {"state": standing.state.value, "variances": 1}]
