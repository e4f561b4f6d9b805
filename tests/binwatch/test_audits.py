"""Audits are appended to the ledger and judged by the state at that time. On both databases."""

from __future__ import annotations

import random
import re
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial

import pytest
from sqlalchemy import Engine, event, func, select

from binwatch.confusion import INVENTORY, TruthSource
from binwatch.counts import Outcome, outcome_of_difference
from binwatch.errors import Reason
from binwatch.records.audits import MAX_NOTE_LENGTH, AuditAnswer, AuditReason, UnknownBin
from binwatch.records.audits import add_audit as record
from binwatch.records.settlement import PhotoState, QuantityState
from binwatch.records.store import NewCount, NewExpectation, Store
from binwatch.records.tables import Audit, AuditTotal, Bin, BinTotal, ConfusionTotal, Count, Expectation

START = datetime(2026, 11, 20, tzinfo=UTC)

Cell = tuple[str, str, int, str]
add_audit = partial(record, blind=True)


class Subject(StrEnum):
    """The number that an audit judges."""

    COUNT = "count"
    INVENTORY = "inventory"


def _count(bin_id: str, predicted: int | None, minutes: int = 0, model: str = "v1") -> NewCount:
    return NewCount(
        bucket="bins",
        key=f"bin-images/{bin_id}.jpg",
        etag=f"{minutes}",
        model_version=model,
        precision="int8",
        provider="CPUExecutionProvider",
        modified_at=START + timedelta(minutes=minutes),
        predicted=predicted,
        reason=Reason.CORRUPT if predicted is None else None,
    )


def _expectation(bin_id: str, quantity: int, minutes: int = 0) -> NewExpectation:
    at = START + timedelta(minutes=minutes)
    return NewExpectation(
        bucket="bins", bin_id=bin_id, source="x.json", etag=f"{minutes}", modified_at=at, quantity=quantity
    )


def _audited(engine: Engine, reference: TruthSource = TruthSource.AUDIT) -> list[tuple[str, int, int, int]]:
    """Read model ('' for the inventory), true class, predicted class and comparisons from the audits' totals."""
    where = (ConfusionTotal.reference == reference, ConfusionTotal.comparisons != 0)
    labels = (ConfusionTotal.model_version, ConfusionTotal.true_class, ConfusionTotal.predicted_class)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(*labels, ConfusionTotal.comparisons).where(*where))]


def _confusions(engine: Engine, reference: TruthSource = TruthSource.AUDIT) -> dict[tuple[str, int, int], int]:
    return {
        (model, true, predicted): n for model, true, predicted, n in _audited(engine, reference) if model != INVENTORY
    }


def _totals(engine: Engine, reference: TruthSource = TruthSource.AUDIT) -> dict[Cell, tuple[int, int]]:
    result: dict[Cell, tuple[int, int]] = {}
    for model, true, predicted, n in _audited(engine, reference):
        subject = Subject.INVENTORY if model == INVENTORY else Subject.COUNT
        cell = subject, model, true, outcome_of_difference(predicted - true)
        number, error = result.get(cell, (0, 0))
        result[cell] = number + n, error + n * abs(predicted - true)
    return result


def test_an_audit_judges_the_count_and_the_inventory(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("a", 6)])
    store.add_expectations([_expectation("a", 40)])
    audited = add_audit(records_engine, "bins", "a", 5, "Ada")
    assert (audited.of_count, audited.of_inventory) == (Outcome.OVER, Outcome.OVER)
    assert _totals(records_engine) == {
        (Subject.COUNT, "v1", 5, Outcome.OVER): (1, 1),
        (Subject.INVENTORY, "", 5, Outcome.OVER): (1, 1),
    }


def test_a_corrected_audit_stays_in_the_ledger_but_not_in_the_totals(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("a", 6)])
    store.add_expectations([_expectation("a", 40)])
    for auditor, quantity in (("Ada", 5), ("Ben", 2), (None, 90), ("Ada", 90)):
        add_audit(records_engine, "bins", "a", quantity, auditor)
    assert _totals(records_engine) == {
        (Subject.COUNT, "v1", 6, Outcome.EXACT): (1, 0),
        (Subject.INVENTORY, "", 6, Outcome.EXACT): (1, 0),
    }
    assert _confusions(records_engine) == {("v1", 6, 6): 1}
    with records_engine.connect() as connection:
        rows = connection.execute(select(Audit.auditor, Audit.quantity).order_by(Audit.id)).all()
    assert [tuple(row) for row in rows] == [("Ada", 5), ("Ben", 2), (None, 90), ("Ada", 90)]


def test_another_model_and_a_corrected_quantity_are_judged_in_addition(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("a", 2)])
    store.add_expectations([_expectation("a", 3)])
    add_audit(records_engine, "bins", "a", 2)
    store.add_counts([_count("a", 3, model="v2")])
    add_audit(records_engine, "bins", "a", 2)
    first = {
        (Subject.COUNT, "v1", 2, Outcome.EXACT): (1, 0),
        (Subject.COUNT, "v2", 2, Outcome.OVER): (1, 1),
        (Subject.INVENTORY, "", 2, Outcome.OVER): (1, 1),
    }
    assert _totals(records_engine) == first
    store.add_expectations([_expectation("a", 2, minutes=1)])
    add_audit(records_engine, "bins", "a", 2)
    assert _totals(records_engine) == first | {(Subject.INVENTORY, "", 2, Outcome.EXACT): (1, 0)}


def test_an_audit_is_corrected_even_if_the_inventory_has_repeated_its_quantity(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("a", 2)])
    store.add_expectations([_expectation("a", 3)])
    add_audit(records_engine, "bins", "a", 2)
    store.add_expectations([_expectation("a", 3, minutes=1)])
    add_audit(records_engine, "bins", "a", 3)
    assert _totals(records_engine) == {
        (Subject.COUNT, "v1", 3, Outcome.UNDER): (1, 1),
        (Subject.INVENTORY, "", 3, Outcome.EXACT): (1, 0),
    }


def test_audit_totals_follow_from_the_ledger(records_engine: Engine) -> None:
    """In any order of events, each count, and each expected quantity per photo, is judged once."""
    _live(records_engine, random.Random(7))
    for reference, blind in ((TruthSource.AUDIT, True), (TruthSource.SIGHTED, False)):
        result = _totals(records_engine, reference), _confusions(records_engine, reference)
        assert result == _by_hand(records_engine, blind=blind)
    entered = select(Audit.answer, Audit.blind, func.count()).group_by(Audit.answer, Audit.blind)
    summed = select(AuditTotal.answer, AuditTotal.blind, AuditTotal.audits)
    with records_engine.connect() as connection:
        rows = {tuple(row) for row in connection.execute(entered)}
        assert {tuple(row) for row in connection.execute(summed)} == rows
    assert len(rows) == 8, "each answer, blind and not"


def _live(engine: Engine, chance: random.Random) -> None:
    store = Store(engine)
    for minutes in range(200):
        bin_id = chance.choice("abc")
        match chance.choice(("count", "again", "expect", "audit", "audit", "audit")):
            case "count":
                store.add_counts([_count(bin_id, chance.choice((None, *range(7))), minutes)])
            case "again":
                store.add_counts([_count(bin_id, chance.randrange(7), 0, model=chance.choice(("v1", "v2")))])
            case "expect":
                store.add_expectations([_expectation(bin_id, chance.randrange(9), minutes)])
            case _:
                answer = chance.choice((AuditAnswer.COUNT, AuditAnswer.COUNT, *AuditAnswer))
                quantity = chance.randrange(1, 9) if answer.has_quantity else None
                auditor, blind = chance.choice(("Ada", "Ben", None)), chance.random() < 0.5
                with suppress(UnknownBin):
                    record(engine, "bins", bin_id, quantity, auditor, answer=answer, blind=blind)


def _by_hand(engine: Engine, *, blind: bool) -> tuple[dict[Cell, tuple[int, int]], dict[tuple[str, int, int], int]]:
    statement = (
        select(Audit.__table__, Count.key, Count.etag, Count.predicted, Count.model_version)
        .add_columns(Expectation.quantity.label("expected"))
        .select_from(Audit)
        .outerjoin(Count, Count.id == Audit.count_id)
        .outerjoin(Expectation, Expectation.id == Audit.expectation_id)
        .where(Audit.blind == blind)
        .order_by(Audit.id)
    )
    judged: dict[tuple[object, ...], tuple[str, str, int, int, str | None]] = {}
    with engine.connect() as connection:
        for row in connection.execute(statement).mappings():
            judgements: dict[tuple[object, ...], tuple[str, str, int]] = {}
            if row["count_id"]:
                judgements["count", row["count_id"]] = ("count", row["model_version"], row["predicted"])
            if row["expectation_id"]:
                photo = (row["bin_id"], row["expected"], row["key"], row["etag"])
                judgements["inventory", *photo] = ("inventory", "", min(row["expected"], 6))
            for key, judgement in judgements.items():
                if row["answer"] == "count":
                    judged[key] = (*judgement, min(row["quantity"], 6), row["auditor"])
                elif row["auditor"] and key in judged and judged[key][-1] == row["auditor"]:
                    del judged[key]
    totals, confusions = Counter[Cell](), Counter[tuple[str, int, int]]()
    errors = Counter[Cell]()
    for subject, model, predicted, truth, _ in judged.values():
        outcome = "exact" if predicted == truth else "under" if predicted < truth else "over"
        totals[subject, model, truth, outcome] += 1
        errors[subject, model, truth, outcome] += abs(predicted - truth)
        if subject == "count":
            confusions[model, truth, predicted] += 1
    return {cell: (number, errors[cell]) for cell, number in totals.items()}, dict(confusions)


def test_totals_are_locked_in_the_same_order_by_all_writers(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("a", 6)])
    store.add_expectations([_expectation("a", 40)])
    statements: list[str] = []
    event.listen(records_engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    add_audit(records_engine, "bins", "a", 5, "Ada")
    totals = [match[1] for statement in statements if (match := re.match(r"INSERT INTO (\w+_totals)", statement))]
    assert totals == ["confusion_totals", "audit_totals", "variance_totals"]


def test_an_answer_without_an_exact_number_is_not_ground_truth(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("a", 4)])
    store.add_expectations([_expectation("a", 9)])
    add_audit(records_engine, "bins", "a", 4, "Ada")
    hidden = {"answer": AuditAnswer.AT_LEAST, "reason": AuditReason.HIDDEN, "note": " a box in front "}
    at_least = add_audit(records_engine, "bins", "a", 6, "Ben", **hidden)
    assert (at_least.of_count, at_least.of_inventory) == (Outcome.UNDER, None), "it contradicts 4 but not 9"
    result = {(Subject.COUNT, "v1", 4, Outcome.EXACT): (1, 0), (Subject.INVENTORY, "", 4, Outcome.OVER): (1, 2)}
    assert _totals(records_engine) == result, "another person's number remains valid"
    for answer in (AuditAnswer.CANNOT_TELL, AuditAnswer.GO_AND_COUNT):
        audit = add_audit(records_engine, "bins", "a", None, "Ben", answer=answer)
        assert (audit.of_count, audit.of_inventory) == (None, None)
    assert _totals(records_engine) == result
    assert not add_audit(records_engine, "bins", "a", 9, "Ben").blind, 'after "at least 6" both numbers were shown'
    add_audit(records_engine, "bins", "a", 9, "Cleo")
    assert _confusions(records_engine) == {("v1", 6, 4): 1}
    with records_engine.connect() as connection:
        second = connection.execute(select(Audit.__table__).where(Audit.id == at_least.id)).mappings().one()
    assert (second["reason"], second["note"], second["quantity"]) == ("hidden", "a box in front", 6)


def test_an_answer_without_a_number_withdraws_only_the_same_persons_number(records_engine: Engine) -> None:
    Store(records_engine).add_counts([_count("a", 3)])
    sighted = partial(_confusions, records_engine, TruthSource.SIGHTED)
    record(records_engine, "bins", "a", 4, "Ada")
    for auditor in ("Ben", None):
        record(records_engine, "bins", "a", None, auditor, answer=AuditAnswer.CANNOT_TELL)
        assert sighted() == {("v1", 4, 3): 1}
    record(records_engine, "bins", "a", None, "Ada", answer=AuditAnswer.GO_AND_COUNT)
    assert sighted() == {}
    record(records_engine, "bins", "a", None, "Ada", answer=AuditAnswer.CANNOT_TELL)
    assert sighted() == {}, "withdrawn only once"
    record(records_engine, "bins", "a", 5, "Ben")
    assert sighted() == {("v1", 5, 3): 1}


def test_a_blind_audit_that_repeats_a_sighted_one_is_recorded(records_engine: Engine) -> None:
    Store(records_engine).add_counts([_count("a", 3)])
    assert not record(records_engine, "bins", "a", 2).blind
    repeated = add_audit(records_engine, "bins", "a", 2)
    assert (repeated.blind, repeated.is_new) == (True, True)
    assert not record(records_engine, "bins", "a", 2).is_new
    assert _confusions(records_engine) == {("v1", 2, 3): 1}


def test_sighted_audits_have_separate_totals(records_engine: Engine) -> None:
    """They do not correct blind ones, since people correct what differs from the numbers and leave what agrees."""
    store = Store(records_engine)
    store.add_counts([_count("a", 3)])
    add_audit(records_engine, "bins", "a", 4, "Ada")
    record(records_engine, "bins", "a", 3, "Ada")
    record(records_engine, "bins", "a", 5, "Ben")
    assert _confusions(records_engine) == {("v1", 4, 3): 1}
    assert _confusions(records_engine, TruthSource.SIGHTED) == {("v1", 5, 3): 1}


def test_only_the_first_number_for_a_photo_can_be_blind(records_engine: Engine) -> None:
    """Both recorded numbers are shown after it."""
    store = Store(records_engine)
    store.add_counts([_count("a", 3)])

    def answer(quantity: int, auditor: str, seen_count: int | None) -> tuple[bool, bool]:
        audited = add_audit(records_engine, "bins", "a", quantity, auditor, seen_count)
        return audited.blind, audited.is_new

    assert answer(4, "Ada", 1) == (True, True)
    assert answer(4, "Ada", 1) == (True, False), "a form sent twice"
    assert answer(3, "Ada", 1) == (False, True)
    assert answer(3, "Ben", 1) == (True, True)
    store.add_counts([_count("a", 3, model="v2")])
    assert answer(5, "Ada", 2) == (False, True), "the same photo, counted by another model"
    store.add_counts([_count("a", 3, minutes=1, model="v2")])
    assert answer(5, "Ada", 3) == (True, True)
    store.add_counts([_count("failed", None)])
    assert add_audit(records_engine, "bins", "failed", 1, "Ada", 4).blind


@pytest.mark.parametrize(
    ("answer", "quantity", "note", "says"),
    [
        (AuditAnswer.COUNT, None, None, "count needs a number"),
        (AuditAnswer.AT_LEAST, None, None, "at_least needs a number"),
        (AuditAnswer.AT_LEAST, 0, None, "at least 0 items says nothing"),
        (AuditAnswer.CANNOT_TELL, 3, None, "cannot_tell has no number of items; leave out 3"),
        (AuditAnswer.GO_AND_COUNT, 0, None, "go_and_count has no number"),
        (AuditAnswer.COUNT, 1, "two\nlines", "on one line"),
        (AuditAnswer.COUNT, 1, "x" * (MAX_NOTE_LENGTH + 1), "at most 200 characters"),
    ],
)
def test_invalid_answers_are_refused(
    sqlite_records: Engine, answer: AuditAnswer, quantity: int | None, note: str | None, says: str
) -> None:
    Store(sqlite_records).add_counts([_count("a", 3)])
    with pytest.raises(ValueError, match=says):
        add_audit(sqlite_records, "bins", "a", quantity, answer=answer, note=note)


def test_a_missing_count_or_quantity_is_not_judged(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([_count("failed", None)])
    store.add_expectations([_expectation("unseen", 2)])
    assert add_audit(records_engine, "bins", "failed", 1).of_count is None
    assert add_audit(records_engine, "bins", "unseen", 2).of_inventory is Outcome.EXACT
    assert _totals(records_engine) == {(Subject.INVENTORY, "", 2, Outcome.EXACT): (1, 0)}


def test_a_later_photo_does_not_change_an_audit(records_engine: Engine) -> None:
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


def test_bin_totals_equal_a_scan(records_engine: Engine) -> None:
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
    result = {(PhotoState(photo), QuantityState(quantity)): bins for photo, quantity, bins in scanned}
    assert result == {
        (PhotoState.COUNTED, QuantityState.NONE): 2,
        (PhotoState.COUNTED, QuantityState.KNOWN): 1,
        (PhotoState.NONE, QuantityState.KNOWN): 1,
    }
    assert {tuple(row) for row in scanned} == {tuple(row) for row in totals}
