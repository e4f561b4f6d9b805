"""Random draws: which bins are drawn, with what likelihood, and which audits answer them. On both databases."""

from __future__ import annotations

import random
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, select, update

from binwatch.errors import Reason
from binwatch.records.audits import AuditAnswer
from binwatch.records.audits import add_audit as record
from binwatch.records.draws import MIN_LIKELIHOOD, NothingToDraw, draw, draw_likelihood, sample_counted_bins
from binwatch.records.store import NewCount, NewExpectation, Store
from binwatch.records.tables import AuditDraw, Bin

START = datetime(2026, 11, 20, tzinfo=UTC)
SURE, UNSURE = [0.01, 0.9, 0.05, 0.01, 0.01, 0.01, 0.01], [0.2, 0.3, 0.2, 0.1, 0.1, 0.05, 0.05]
add_audit = partial(record, blind=True)


def _count(bin_id: str, probabilities: list[float] | None, minutes: int = 0, model: str = "v2") -> NewCount:
    return NewCount(
        bucket="bins",
        key=f"bin-images/{bin_id}.jpg",
        etag=f"{minutes}",
        model_version=model,
        precision="int8",
        provider="CPUExecutionProvider",
        modified_at=START + timedelta(minutes=minutes),
        predicted=1 if probabilities else None,
        probabilities=probabilities,
        reason=None if probabilities else Reason.CORRUPT,
    )


@pytest.fixture
def engine(records_engine: Engine) -> Engine:
    """Record two bins that the model in use has counted, and others that it has not."""
    store = Store(records_engine)
    store.add_counts([_count("earlier", SURE, model="v1"), _count("sure", UNSURE)])
    store.add_counts([_count("sure", SURE, minutes=1), _count("unsure", UNSURE), _count("corrupt", None)])
    quantity = NewExpectation(bucket="bins", bin_id="sure", source="x.json", etag="", modified_at=START, quantity=2)
    store.add_expectations([quantity])
    return records_engine


def _draws(engine: Engine) -> list[tuple[str, float]]:
    with engine.connect() as connection:
        rows = connection.execute(select(AuditDraw.bin_id, AuditDraw.likelihood).order_by(AuditDraw.id))
        return [(bin_id, likely) for bin_id, likely in rows]


def test_draws_sample_bins_whose_latest_photo_the_model_in_use_counted(engine: Engine) -> None:
    with engine.connect() as connection:
        result = list(sample_counted_bins(connection, random.Random(0), [4_000]))
    assert {(item.bin.bin_id, item.confidence, item.chance) for item in result} == {
        ("sure", 0.9, 0.05),
        ("unsure", 0.3, None),
    }
    shares = Counter(item.bin.bin_id for item in result)
    assert shares["sure"] / shares.total() == pytest.approx(0.5, abs=0.05)


def test_all_bins_are_read_if_no_random_id_is_a_latest_count(engine: Engine) -> None:
    """After a change of model, nearly all counts are by the previous one."""
    with engine.connect() as connection:
        result = Counter(item.bin.bin_id for item in sample_counted_bins(connection, random.Random(0), []))
        assert not result
        never = random.Random(0)
        never.randint = lambda low, high: low  # type: ignore[method-assign]
        shares = Counter(item.bin.bin_id for item in sample_counted_bins(connection, never, [2_000]))
    assert shares["sure"] / shares.total() == pytest.approx(0.5, abs=0.05)


def test_counts_of_other_models_are_not_read(engine: Engine) -> None:
    """After a change of model, nearly all counts are by the previous one; an index finds those of the model in use."""
    Store(engine).add_counts([_count(f"{number}", SURE, model="v1") for number in range(2_000)])
    Store(engine).add_counts([_count("newest", SURE)])
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    statements: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append((call[2], call[3])))
    with engine.connect() as connection:
        assert not list(sample_counted_bins(connection, random.Random(0), []))  # no ids are tried, so all bins are read
        explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
        of_model = [
            (explain + statement, values) for statement, values in statements if "predicted IS NOT NULL" in statement
        ]
        plans = ["\n".join(str(row) for row in connection.exec_driver_sql(*item)) for item in of_model]
    assert len(plans) == 2
    for plan in plans:
        assert "ix_counts_model" in plan
        assert not re.search(r"Seq Scan on counts|SCAN counts", plan)


def test_a_draw_by_doubt_is_recorded_with_its_likelihood(engine: Engine) -> None:
    source = random.Random(3)
    while len({bin_id for bin_id, _ in _draws(engine)}) < 2:
        draw(engine, by_doubt=True, rng=source)
    assert set(_draws(engine)) == {("sure", 0.95), ("unsure", 0.7)}
    draw(engine, rng=source)
    assert _draws(engine)[-1][1] == 1


def test_draw_likelihood_is_bounded() -> None:
    assert [draw_likelihood(chance) for chance in (None, 0.0, 0.3, 0.5, 0.99)] == [
        1,
        1,
        0.7,
        MIN_LIKELIHOOD,
        MIN_LIKELIHOOD,
    ]


def test_any_blind_count_of_the_photo_answers_the_draw(engine: Engine) -> None:
    add_audit(engine, "bins", "sure", 1, "Ada")
    record(engine, "bins", "unsure", 1, "Ben", blind=False)  # a sighted audit does not answer it
    add_audit(engine, "bins", "unsure", None, "Cleo", answer=AuditAnswer.CANNOT_TELL)
    source = random.Random(0)
    assert {draw(engine, rng=source).bin_id for _ in range(8)} == {"unsure"}
    assert {bin_id for bin_id, _ in _draws(engine)} == {"sure", "unsure"}
    add_audit(engine, "bins", "unsure", 3, "Dan")
    with pytest.raises(NothingToDraw, match="no bin to draw"):
        draw(engine, rng=source)


def test_an_unanswered_draw_is_reassigned_until_it_is_answered(engine: Engine) -> None:
    first = draw(engine, rng=random.Random(0))
    with engine.begin() as connection:
        connection.execute(update(AuditDraw).values(drawn_at=START))
    assert [draw(engine) for _ in range(3)] == [first] * 3
    assert len(_draws(engine)) == 1
    add_audit(engine, first.bucket, first.bin_id, None, answer=AuditAnswer.CANNOT_TELL)
    draw(engine)
    assert len(_draws(engine)) > 1


def test_drawing_without_counted_bins_raises(records_engine: Engine) -> None:
    with pytest.raises(NothingToDraw):
        draw(records_engine)


def test_an_auditor_is_not_given_a_bin_whose_numbers_they_have_seen(engine: Engine) -> None:
    first = draw(engine, "Ada", rng=random.Random(1))
    with engine.begin() as connection:
        connection.execute(update(AuditDraw).values(drawn_at=START))
    record(engine, "bins", first.bin_id, 1, "Ada")
    assert draw(engine, "Ada", rng=random.Random(1)).bin_id != first.bin_id
    assert draw(engine, "Ben").bin_id == first.bin_id


def test_imported_draws_do_not_count_as_the_latest(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = draw(engine, rng=random.Random(1))
    other = "sure" if first.bin_id == "unsure" else "unsure"
    with engine.begin() as connection:
        connection.execute(update(AuditDraw).values(drawn_at=START))
        of_other = select(Bin.bucket, Bin.bin_id, Bin.count_id).where(Bin.bin_id == other)
        row = connection.execute(of_other).one()._asdict()
        connection.execute(insert(AuditDraw).values(**row, likelihood=1.0, drawn_at=START - timedelta(days=9)))
    assert draw(engine).bin_id == other, "it waits longest"
    monkeypatch.setattr("binwatch.records.draws._MAX_RECENT_DRAWS", 1)
    assert draw(engine).bin_id == first.bin_id


def _drawn_long_ago(engine: Engine, *bin_ids: str) -> None:
    """Draw each bin a minute after the previous one."""
    with engine.begin() as connection:
        for minutes, bin_id in enumerate(bin_ids):
            row = connection.execute(select(Bin.bucket, Bin.bin_id, Bin.count_id).where(Bin.bin_id == bin_id)).one()
            values = row._asdict() | {"likelihood": 1.0, "drawn_at": START + timedelta(minutes=minutes)}
            connection.execute(insert(AuditDraw).values(**values))


def test_skipping_passes_through_unanswered_draws_and_then_draws_new_bins(engine: Engine) -> None:
    Store(engine).add_counts([_count("third", SURE)])
    _drawn_long_ago(engine, "sure", "unsure", "sure")
    drawn = draw(engine, "Ada")
    assert drawn.bin_id == "sure"
    drawn = draw(engine, "Ada", skipped=("bins", "sure"))
    assert (drawn.bin_id, len(_draws(engine))) == ("unsure", 3)
    source = random.Random(0)
    new = {draw(engine, "Ada", skipped=("bins", "unsure"), rng=source).bin_id for _ in range(20)}
    assert new == {"sure", "third"}
    assert len(_draws(engine)) > 20
    assert draw(engine, "Ben").bin_id == "sure", "what was skipped stays open"


def test_skipping_a_new_draw_returns_draws_that_became_due_since(engine: Engine) -> None:
    """Draws that were due before are left out, since this person has skipped them already."""
    Store(engine).add_counts([_count("third", SURE)])
    _drawn_long_ago(engine, "sure", "unsure", "third")
    for bin_id, minutes in (("third", 5), ("unsure", 17)):  # "unsure" has waited for two minutes
        with engine.begin() as connection:
            moment = datetime.now(UTC) - timedelta(minutes=minutes)
            connection.execute(update(AuditDraw).where(AuditDraw.bin_id == bin_id).values(drawn_at=moment))
    assert draw(engine, "Ada").bin_id == "sure"
    assert draw(engine, "Ada", skipped=("bins", "third")).bin_id == "unsure"
    assert len(_draws(engine)) == 3


def test_skipping_any_other_bin_returns_the_oldest_unanswered_draw(engine: Engine) -> None:
    """For example, the bin was a test of the auditor, or somebody else has answered it meanwhile."""
    Store(engine).add_counts([_count("third", SURE)])
    _drawn_long_ago(engine, "third", "sure", "unsure")
    add_audit(engine, "bins", "third", 1, "Ben")
    for skipped in ("third", "never drawn"):
        assert draw(engine, "Ada", skipped=("bins", skipped)).bin_id == "sure"
    assert len(_draws(engine)) == 3


def test_a_skipped_bin_is_not_returned_but_its_draw_is_recorded(engine: Engine) -> None:
    for bin_id in ("sure", "unsure"):
        add_audit(engine, "bins", bin_id, 1, "Ada")
    Store(engine).add_counts([_count("third", SURE)])
    with pytest.raises(NothingToDraw, match="audited or skipped"):
        draw(engine, rng=random.Random(0), skipped=("bins", "third"))
    assert {bin_id for bin_id, _ in _draws(engine)} == {"sure", "unsure", "third"}
    Store(engine).add_counts([_count("fourth", SURE)])
    assert draw(engine, rng=random.Random(0), skipped=("bins", "third")).bin_id == "fourth"


def test_the_latest_draws_are_found_by_an_index(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _drawn_long_ago(engine, *["sure"] * 3_000)
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    monkeypatch.setattr("binwatch.records.draws._MAX_RECENT_DRAWS", 10)
    statements: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append((call[2], call[3])))
    assert draw(engine).bin_id == "sure"
    (waiting,) = [statement for statement in statements if "drawn_at DESC" in statement[0]]
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        plan = "\n".join(str(row) for row in connection.exec_driver_sql(explain + waiting[0], waiting[1]))
    assert "ix_audit_draws_drawn_at" in plan
