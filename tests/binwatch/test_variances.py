"""Variances: the state of a trail, and its changes by audits, corrections and decisions."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from binwatch.records.audits import AuditAnswer, add_audit
from binwatch.records.settle_variances import decide
from binwatch.records.store import NewCount, NewExpectation, Store
from binwatch.records.tables import Audit, Variance, VarianceEntry, VarianceTotal
from binwatch.records.variances import (
    OwnCount,
    TrailEntry,
    UnknownVariance,
    VarianceConflict,
    VarianceDecision,
    VarianceState,
    VarianceStep,
    VarianceTolerance,
    check_decision,
    check_trail,
    is_recount,
    standing_of,
)

START = datetime(2026, 11, 20, tzinfo=UTC)
OPEN, RECOUNTED, APPROVED, REJECTED, SUPERSEDED = VarianceState


def _trail(*counts: int, end: VarianceStep | None = None) -> list[TrailEntry]:
    """Return a trail of counts by different people with an optional last step."""
    counted = [TrailEntry(VarianceStep.COUNTED, quantity, f"person {number}") for number, quantity in enumerate(counts)]
    return counted + ([TrailEntry(end, None, "Eve")] if end else [])


@pytest.mark.parametrize(
    ("trail", "state", "quantity"),
    [
        (_trail(7), OPEN, None),
        (_trail(7, 7), RECOUNTED, 7),
        (_trail(7, 5), OPEN, None),
        (_trail(7, 5, 5), RECOUNTED, 5),
        (_trail(7, 5, 6), OPEN, None),
        (_trail(7, 7, 5), RECOUNTED, 7),
        (_trail(7, 7, 5, 5), OPEN, None),
        (_trail(7, 7, 5, 5, 5), RECOUNTED, 5),
        (_trail(7, 7, end=VarianceStep.APPROVED), APPROVED, 7),
        (_trail(7, end=VarianceStep.REJECTED), REJECTED, None),
        (_trail(7, 7, end=VarianceStep.SUPERSEDED), SUPERSEDED, 7),
    ],
)
def test_the_state_follows_from_the_trail(trail: list[TrailEntry], state: VarianceState, quantity: int | None) -> None:
    standing = standing_of(trail)
    assert (standing.state, standing.quantity) == (state, quantity)


def test_a_recount_is_blind_and_by_another_person() -> None:
    trail = _trail(7)
    assert is_recount(trail, "Ben", blind=True)
    assert not is_recount(trail, "Ben", blind=False)
    assert not is_recount(trail, "person 0", blind=True)
    assert not is_recount(trail, None, blind=True), "the person is unknown"


@pytest.mark.parametrize(
    ("tolerance", "beyond"),
    [
        (VarianceTolerance(), {9, 11, 12, 13}),
        (VarianceTolerance(items=1), {12, 13}),
        (VarianceTolerance(share=0.2), {13}),
        (VarianceTolerance(items=2, share=0.1), {13}),
    ],
)
def test_the_tolerance_is_exceeded_beyond_both_limits(tolerance: VarianceTolerance, beyond: set[int]) -> None:
    assert {quantity for quantity in range(9, 14) if tolerance.is_exceeded(10, quantity)} == beyond


@pytest.mark.parametrize(
    ("trail", "decision", "person", "quantity", "error"),
    [
        (_trail(7, 7), VarianceDecision.APPROVED, "person 1", 7, OwnCount),
        (_trail(7, 7), VarianceDecision.REJECTED, "person 0", None, OwnCount),
        (_trail(7), VarianceDecision.APPROVED, "Eve", 7, VarianceConflict),
        (_trail(7, 7), VarianceDecision.APPROVED, "Eve", 5, VarianceConflict),
        (_trail(7, 7), VarianceDecision.APPROVED, "Eve", None, VarianceConflict),
        (_trail(7, 4, 4), VarianceDecision.APPROVED, "Eve", 4, VarianceConflict),  # equal to the inventory
        (_trail(7, 7, end=VarianceStep.SUPERSEDED), VarianceDecision.REJECTED, "Ann", None, VarianceConflict),
        (_trail(7, 7), VarianceDecision.APPROVED, "Eve", 7, None),
        (_trail(7), VarianceDecision.REJECTED, "Eve", None, None),
    ],
)
def test_who_may_decide_and_when(
    trail: list[TrailEntry],
    decision: VarianceDecision,
    person: str,
    quantity: int | None,
    error: type[Exception] | None,
) -> None:
    ask = partial(check_decision, trail, decision, person, quantity, expected=4)
    if error is None:
        ask()
    else:
        with pytest.raises(error):
            ask()


@pytest.mark.parametrize(
    ("trail", "error"),
    [
        ([], "begins with a count"),
        ([TrailEntry(VarianceStep.SUPERSEDED, 6)], "begins with a count"),
        ([*_trail(7), TrailEntry(VarianceStep.COUNTED, 7, "person 0")], "another person"),
        ([*_trail(7), TrailEntry(VarianceStep.COUNTED, 7)], "another person"),
        ([*_trail(7, 7), TrailEntry(VarianceStep.APPROVED, 7)], "needs the name"),
        ([*_trail(7, 7), TrailEntry(VarianceStep.APPROVED, 6, "Eve")], "most people found is 7"),
        ([*_trail(7, 7), TrailEntry(VarianceStep.REJECTED, None, "person 1")], "somebody else has to"),
        ([*_trail(7, end=VarianceStep.REJECTED), TrailEntry(VarianceStep.COUNTED, 7, "Ann")], "is closed"),
        ([*_trail(7, end=VarianceStep.REJECTED), TrailEntry(VarianceStep.SUPERSEDED, 6)], "is closed"),
        ([*_trail(7, end=VarianceStep.REJECTED), TrailEntry(VarianceStep.REJECTED, None, "Ann")], "rejected already"),
        (_trail(7, 5), None),
        ([*_trail(7, 7), TrailEntry(VarianceStep.APPROVED, 7, "Eve")], None),
        ([*_trail(7), TrailEntry(VarianceStep.SUPERSEDED, 6)], None),
    ],
)
def test_check_trail_accepts_only_valid_orders_of_steps(trail: list[TrailEntry], error: str | None) -> None:
    if error is None:
        check_trail(trail, expected=4)
    else:
        with pytest.raises((OwnCount, VarianceConflict), match=error):
            check_trail(trail, expected=4)


# In the database


@pytest.fixture
def store(records_engine: Engine) -> Store:
    """Return a store with bin a, whose count is 5 and whose expected quantity is 4."""
    store = Store(records_engine)
    store.add_counts([_photo()])
    store.add_expectations([_expected(4)])
    return store


def _photo(minutes: int = 0) -> NewCount:
    return NewCount(
        bucket="bins", key="a.jpg", etag=f"{minutes}", model_version="v1", precision="int8", provider="cpu",
        modified_at=START + timedelta(minutes=minutes), predicted=5,
    )  # fmt: skip


def _expected(quantity: int, minutes: int = 0) -> NewExpectation:
    at = START + timedelta(minutes=minutes)
    return NewExpectation(
        bucket="bins", bin_id="a", source="x.json", etag=f"{minutes}", modified_at=at, quantity=quantity
    )


def _audit(engine: Engine, quantity: int | None, person: str | None, **fields: Any) -> None:
    add_audit(engine, "bins", "a", quantity, person, **{"blind": True} | fields)


def _variances(engine: Engine) -> list[tuple[str, int, int | None, bool]]:
    """Read state, expected quantity, quantity and whether it is closed; check the totals against them."""
    columns = (Variance.state, Variance.expected, Variance.quantity, Variance.closed_at)
    with engine.connect() as connection:
        rows = connection.execute(select(*columns).order_by(Variance.id)).all()
        by_state = select(Variance.state, func.count()).group_by(Variance.state)
        summed = select(VarianceTotal.state, VarianceTotal.variances).where(VarianceTotal.variances != 0)
        by_hand, recorded = (set(map(tuple, connection.execute(query))) for query in (by_state, summed))
        assert by_hand == recorded
    return [(state, expected, quantity, closed is not None) for state, expected, quantity, closed in rows]


def _entries(engine: Engine) -> list[tuple[Any, ...]]:
    columns = (VarianceEntry.step, VarianceEntry.quantity, VarianceEntry.person, VarianceEntry.note)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(*columns).order_by(VarianceEntry.id))]


def test_a_variance_from_audit_to_approval(records_engine: Engine, store: Store) -> None:
    _audit(records_engine, 4, "Ann")
    _audit(records_engine, 5, "Ann", answer=AuditAnswer.AT_LEAST)
    _audit(records_engine, 6, "Ann", tolerance=VarianceTolerance(items=2))
    assert _variances(records_engine) == []
    _audit(records_engine, 7, "Ada", blind=False)
    assert _variances(records_engine) == [("open", 4, None, False)]
    _audit(records_engine, 4, "Ada")  # a correction by the same person
    _audit(records_engine, 7, "Ben", blind=False)
    _audit(records_engine, 7, None)
    assert _variances(records_engine) == [("open", 4, None, False)]
    _audit(records_engine, 7, "Cleo", tolerance=VarianceTolerance(items=9))
    assert _variances(records_engine) == [("recounted", 4, 7, False)]
    with pytest.raises(OwnCount):
        decide(records_engine, 1, VarianceDecision.APPROVED, "Cleo", None, 7)
    decided = decide(records_engine, 1, VarianceDecision.APPROVED, "Eve", "as seen", 7)
    assert (decided.bin_id, decided.state, decided.expected, decided.quantity) == ("a", APPROVED, 4, 7)
    with pytest.raises(VarianceConflict, match="approved already"):
        decide(records_engine, 1, VarianceDecision.REJECTED, "Eve", "no")
    with pytest.raises(UnknownVariance):
        decide(records_engine, 2, VarianceDecision.REJECTED, "Eve", "no")
    _audit(records_engine, 7, "Dan")  # the inventory does not follow yet
    store.add_expectations([_expected(7, minutes=1)])
    assert _variances(records_engine) == [("approved", 4, 7, True)]
    assert _entries(records_engine) == [
        ("counted", 7, "Ada", None), ("counted", 7, "Cleo", None), ("approved", 7, "Eve", "as seen")
    ]  # fmt: skip


def test_a_corrected_quantity_supersedes_but_a_newer_photo_does_not(records_engine: Engine, store: Store) -> None:
    _audit(records_engine, 7, "Ada")
    store.add_counts([_photo(minutes=1)])
    store.add_expectations([_expected(4, minutes=1)])  # as every night
    _audit(records_engine, 7, "Ben")
    assert _variances(records_engine) == [("recounted", 4, 7, False)]
    store.add_expectations([_expected(6, minutes=2)])
    assert _variances(records_engine) == [("superseded", 4, 7, True)]
    store.add_expectations([_expected(5, minutes=3)])
    _audit(records_engine, 7, "Cleo")
    assert _variances(records_engine) == [("superseded", 4, 7, True), ("open", 5, None, False)]
    assert _entries(records_engine)[2:] == [("superseded", 6, None, None), ("counted", 7, "Cleo", None)]


def test_a_count_is_compared_with_the_quantity_at_its_own_time(records_engine: Engine, store: Store) -> None:
    """A later expected quantity may be right too, since goods may have moved."""
    _audit(records_engine, 4, "Ada")
    store.add_expectations([_expected(6, minutes=1)])
    assert _variances(records_engine) == []
    _audit(records_engine, 4, "Ben")  # compared again, with the new quantity
    assert _variances(records_engine) == [("open", 6, None, False)]


def test_simultaneous_audits_open_one_variance(records_engine: Engine, store: Store) -> None:
    _at_once(partial(_audit, records_engine, 7, "Ada"), partial(_audit, records_engine, 7, "Ben"))
    assert _variances(records_engine) == [("recounted", 4, 7, False)]


def test_of_simultaneous_decisions_only_one_succeeds(records_engine: Engine, store: Store) -> None:
    for person in ("Ada", "Ben"):
        _audit(records_engine, 7, person)
    outcomes = _at_once(
        partial(decide, records_engine, 1, VarianceDecision.APPROVED, "Eve", None, 7),
        partial(decide, records_engine, 1, VarianceDecision.REJECTED, "Flo", "no"),
    )
    assert [type(item) for item in outcomes if item].count(VarianceConflict) == 1
    assert len(_entries(records_engine)) == 3
    assert len(_variances(records_engine)) == 1


def _at_once(*asks: Callable[[], object]) -> list[BaseException | None]:
    with ThreadPoolExecutor(len(asks)) as pool:
        return [future.exception() for future in [pool.submit(ask) for ask in asks]]


def test_an_audit_is_rolled_back_if_its_variance_cannot_be_written(
    records_engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("the database went away")

    monkeypatch.setattr("binwatch.records.settle_variances._append", fail)
    with pytest.raises(ConnectionError, match="went away"):
        _audit(records_engine, 7, "Ada")
    with records_engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(Audit)).scalar_one() == 0
    assert _variances(records_engine) == []
