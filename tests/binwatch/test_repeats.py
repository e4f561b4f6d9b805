"""Repeats that test auditors: which photos are given to whom. On both databases."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from binwatch.inventory.columns import ColumnNames
from binwatch.inventory.known_answers import load_known_answers
from binwatch.records.audits import AuditAnswer
from binwatch.records.audits import add_audit as record
from binwatch.records.draws import NothingToDraw, first_blind_exact_audit_of
from binwatch.records.repeats import next_bin_to_audit
from binwatch.records.store import NewCount, Store
from binwatch.records.tables import Audit, AuditDraw, AuditRepeat, Count, KnownAnswer

START = datetime(2026, 11, 20, tzinfo=UTC)
add_audit = partial(record, blind=True)
draw_repeat = partial(next_bin_to_audit, test_probability=1.0, rng=random.Random(0))


def _count(bin_id: str, etag: str = "1", model: str = "v1", minutes: int = 0) -> NewCount:
    return NewCount(
        bucket="bins",
        key=f"bin-images/{bin_id}.jpg",
        etag=etag,
        model_version=model,
        precision="int8",
        provider="CPUExecutionProvider",
        modified_at=START + timedelta(minutes=minutes),
        predicted=1,
        probabilities=[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    )


@pytest.fixture
def engine(records_engine: Engine) -> Engine:
    """Record three bins."""
    Store(records_engine).add_counts([_count(name) for name in ("a", "b", "c")])
    return records_engine


def _ledger(engine: Engine) -> list[tuple[int, str]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(AuditRepeat.audit_id, AuditRepeat.auditor))]


def _drawn(engine: Engine) -> int:
    with engine.connect() as connection:
        return len(connection.execute(select(AuditDraw.id)).all())


def test_a_photo_is_given_to_one_second_auditor_and_records_no_draw(engine: Engine) -> None:
    first = add_audit(engine, "bins", "a", 4, "Ada")
    Store(engine).add_counts([_count(name, model="v2") for name in ("a", "b", "c")])  # the same photos
    repeat = draw_repeat(engine, "Ben")
    assert (repeat.bin_id, _ledger(engine), _drawn(engine)) == ("a", [(first.id, "Ben")], 0)
    with engine.connect() as connection:
        counted = connection.execute(select(Count.model_version).where(Count.id == repeat.count_id)).scalar_one()
    assert counted == "v2"
    draw_repeat(engine, "Cleo")
    assert (_ledger(engine), _drawn(engine) > 0) == ([(first.id, "Ben")], True), "it is given to nobody else"


@pytest.mark.parametrize(
    "why",
    ["their own", "sighted", "no number", "nobody's", "a newer photo", "answered", "without a name", "turned off"],
)
def test_photos_that_do_not_test_an_auditor(engine: Engine, why: str) -> None:
    name = {"their own": "Ben", "nobody's": None}.get(why, "Ada")
    if why == "no number":
        add_audit(engine, "bins", "a", None, name, answer=AuditAnswer.CANNOT_TELL)
    else:
        add_audit(engine, "bins", "a", 4, name, blind=why != "sighted")
    if why == "a newer photo":
        Store(engine).add_counts([_count("a", "2", minutes=1)])
    if why == "answered":
        add_audit(engine, "bins", "a", None, "Ben", answer=AuditAnswer.GO_AND_COUNT)
    auditor = None if why == "without a name" else "Ben"
    next_bin_to_audit(engine, auditor, 0.0 if why == "turned off" else 1.0, rng=random.Random(0))
    assert (_ledger(engine), _drawn(engine) > 0) == ([], True)


def test_the_share_of_tests_follows_the_probability(engine: Engine) -> None:
    source, outcomes = random.Random(1), Counter[bool]()
    for number in range(300):
        add_audit(engine, "bins", "a", number, "Ada")
        before = len(_ledger(engine))
        next_bin_to_audit(engine, f"person {number}", 0.2, rng=source)
        outcomes[len(_ledger(engine)) > before] += 1
        with engine.begin() as connection:
            connection.execute(AuditRepeat.__table__.delete())
    assert outcomes[True] / 300 == pytest.approx(0.2, abs=0.06)


def test_an_unanswered_test_is_given_again(engine: Engine) -> None:
    add_audit(engine, "bins", "a", 4, "Ada")
    add_audit(engine, "bins", "b", 4, "Ada")
    unanswered = draw_repeat(engine, "Ben").bin_id
    assert draw_repeat(engine, "Ben").bin_id != unanswered, "not at once"
    with engine.begin() as connection:
        connection.execute(update(AuditRepeat).values(given_at=START))
    assert {draw_repeat(engine, "Ben").bin_id for _ in range(3)} == {"a"}
    add_audit(engine, "bins", "a", None, "Ben", answer=AuditAnswer.CANNOT_TELL)
    assert draw_repeat(engine, "Ben").bin_id == "b"
    assert len(_ledger(engine)) == 2


def test_estimates_keep_the_first_blind_count(engine: Engine) -> None:
    record(engine, "bins", "a", 9, "Cleo")
    first = add_audit(engine, "bins", "a", 4, "Ada")
    add_audit(engine, "bins", "a", 5, "Ben")
    with engine.connect() as connection:
        kept_ids = (
            connection.execute(select(Audit.id).where(Audit.id == first_blind_exact_audit_of(Audit.count_id)))
            .scalars()
            .all()
        )
    assert kept_ids == [first.id]


def _known(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {row.bin_id: row.quantity for row in connection.execute(select(KnownAnswer.__table__))}


def test_known_answers_are_loaded_from_a_label_file(engine: Engine, tmp_path: Path) -> None:
    file, named = tmp_path / "index.csv", ColumnNames("key", "label")
    file.write_text("key,label,label_source\na,3,hand\nb,x,hand\nz,1,hand\n")
    done = load_known_answers(file, engine, "bins", names=named)
    assert (done.recorded, done.known, done.refused.total(), done.without_photo) == (1, 0, 1, ["z"])
    assert _known(engine) == {"a": 3}
    file.write_text("key,label\na,3\nb,7\n")
    repeated = load_known_answers(file, engine, "bins", names=named)
    assert (repeated.recorded, repeated.known, _known(engine)) == (1, 1, {"a": 3, "b": 7})
    file.write_text("key,label\na,4\n")
    assert load_known_answers(file, engine, "bins", names=named).recorded == 1
    assert _known(engine) == {"a": 4, "b": 7}


def test_a_photo_with_a_known_answer_is_given_to_each_auditor_once(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "known.csv"
    file.write_text("bin,quantity\na,3\n")
    load_known_answers(file, engine, "bins")
    for name in ("Ada", "Ben"):
        assert {draw_repeat(engine, name).bin_id for _ in range(3)} == {"a"}
        add_audit(engine, "bins", "a", 3, name)
    assert (_ledger(engine), _drawn(engine)) == ([], 0), "a known answer needs no second person"
    Store(engine).add_counts([_count("a", "2", minutes=1)])
    assert draw_repeat(engine, "Cleo").bin_id in {"a", "b", "c"}
    assert _drawn(engine) > 0, "the known answer does not apply to a newer photo"


def test_without_bins_nothing_is_drawn(records_engine: Engine) -> None:
    with pytest.raises(NothingToDraw):
        draw_repeat(records_engine, "Ada")


def test_a_skipped_test_is_not_given_again_at_once(engine: Engine, tmp_path: Path) -> None:
    add_audit(engine, "bins", "a", 4, "Ada")
    assert draw_repeat(engine, "Ben").bin_id == "a"
    with engine.begin() as connection:
        connection.execute(update(AuditRepeat).values(given_at=START))
    assert {draw_repeat(engine, "Ben", skipped=("bins", "a")).bin_id for _ in range(5)} == {"b", "c"}
    assert draw_repeat(engine, "Ben").bin_id == "a"
    file = tmp_path / "known.csv"
    file.write_text("bin,quantity\nb,3\n")
    load_known_answers(file, engine, "bins")
    assert draw_repeat(engine, "Cleo", skipped=("bins", "b")).bin_id != "b"
