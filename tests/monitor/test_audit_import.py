"""Export and import of audit files, on both databases."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, literal, select
from typer.testing import CliRunner

from binwatch.audit_file import AUDIT_FILE_COLUMNS
from binwatch.errors import BinwatchError, Reason
from binwatch.records.audits import AuditAnswer, AuditReason, add_audit
from binwatch.records.draws import draw
from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.past_audits import ImportOutcome
from binwatch.records.repeats import add_known_answers, next_bin_to_audit
from binwatch.records.settle_variances import decide
from binwatch.records.tables import (
    Audit,
    AuditDraw,
    AuditRepeat,
    AuditTotal,
    ConfusionTotal,
    CurrentComparison,
    KnownAnswer,
    Variance,
    VarianceEntry,
    VarianceTotal,
)
from binwatch.records.variances import VarianceDecision, VarianceStep
from monitor.__main__ import app
from monitor.audit_import import import_audits
from monitor.export import _rows, export_audits
from monitor.random_audits import read_random_audits
from monitor.records import Records
from tests.monitor.conftest import Recorder
from tests.monitor.drifting import BUCKET, DAY

ODD = '=1+2, "quoted"\n— ü'
HEADER = ",".join(AUDIT_FILE_COLUMNS)
AT = "2026-11-20T08:15:00.000001+00:00"


@pytest.fixture
def fresh(records_engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Return a second, empty database of the same kind."""
    is_sqlite = records_engine.dialect.name == "sqlite"
    url = f"sqlite:///{tmp_path / 'fresh.db'}" if is_sqlite else request.getfixturevalue("postgres_empty_url")
    engine = connect(url)
    migrate(engine)
    yield engine
    engine.dispose()


def _export(engine: Engine, file: Path) -> str:
    records = Records(engine.url.render_as_string(hide_password=False))
    try:
        export_audits(records, BUCKET, file)
    finally:
        records.close()
    return file.read_text(encoding="utf-8")


def _record_photos(recorder: Recorder) -> None:
    for bin_id in ("00123", "b", "c", ODD):
        recorder.count(f"bin-images/{bin_id}.jpg", 2, etag="first")
        recorder.expect(bin_id, 3)
    recorder.count("bin-images/failed.jpg", reason=Reason.TRUNCATED)


def _totals(engine: Engine) -> list[list[tuple[object, ...]]]:
    confusions = select(
        ConfusionTotal.reference, ConfusionTotal.model_version, ConfusionTotal.true_class,
        ConfusionTotal.predicted_class, ConfusionTotal.comparisons,
    ).where(ConfusionTotal.comparisons != 0)  # fmt: skip
    answers = select(AuditTotal.answer, AuditTotal.blind, AuditTotal.audits)
    last = select(CurrentComparison.bin_id, Audit.answer, Audit.audited_at).join(
        Audit, Audit.id == CurrentComparison.audit_id
    )
    with engine.connect() as connection:
        return [sorted(tuple(row) for row in connection.execute(query)) for query in (confusions, answers, last)]


def test_export_and_import_round_trip(records_engine: Engine, fresh: Engine, tmp_path: Path) -> None:
    exporting = Recorder(records_engine)
    _record_photos(exporting)
    for seed in range(3):
        draw(records_engine, by_doubt=True, rng=random.Random(seed))
    details = {"reason": AuditReason.HIDDEN, "note": "=behind the „red“ box", "blind": True}
    add_audit(records_engine, BUCKET, "00123", 4, "Ada", answer=AuditAnswer.AT_LEAST, **details)
    add_audit(records_engine, BUCKET, "00123", 3, "+Ben", blind=True)
    exporting.audit("b", 2)
    exporting.audit("b", 4, blind=False)
    exporting.audit(ODD, None, answer=AuditAnswer.CANNOT_TELL)
    exporting.audit("failed", None, answer=AuditAnswer.GO_AND_COUNT)
    exporting.audit("c", 2)
    exporting.count("bin-images/c.jpg", 5, etag="second")  # the earlier audit is of the first photo
    written = _export(records_engine, tmp_path / "audits.csv")

    importing = Recorder(fresh)
    importing.count("bin-images/another.jpg", 1)  # so that ids differ
    _record_photos(importing)
    importing.count("bin-images/c.jpg", 5, etag="second")
    report = import_audits(tmp_path / "audits.csv", fresh)
    assert (report.outcomes, report.refused_file) == ({ImportOutcome.IMPORTED: 12}, None)
    assert _export(fresh, tmp_path / "again.csv") == written
    sums = _totals(fresh)
    assert sums == _totals(records_engine)
    with records_engine.connect() as source, fresh.connect() as target:
        assert read_random_audits(target) == read_random_audits(source)

    assert import_audits(tmp_path / "audits.csv", fresh).outcomes == {ImportOutcome.ALREADY_RECORDED: 12}
    assert _export(fresh, tmp_path / "again.csv") == written
    assert _totals(fresh) == sums


def test_rejected_rows_are_listed_and_can_be_imported_later(
    records_engine: Engine, fresh: Engine, tmp_path: Path
) -> None:
    exporting, importing, file = Recorder(records_engine), Recorder(fresh), tmp_path / "audits.csv"
    for bin_id in ("known", "replaced", "unknown", "later"):
        exporting.count(f"bin-images/{bin_id}.jpg", 2, etag="first")
        exporting.expect(bin_id, 3)
        exporting.audit(bin_id, 4)
    written = _export(records_engine, file)
    importing.count("bin-images/known.jpg", 2, etag="first", model="another")
    importing.count("bin-images/replaced.jpg", 2, etag="second")
    importing.count("bin-images/later.jpg", 2, etag="first")
    importing.audit("later", 5)
    report = import_audits(file, fresh)
    assert report.outcomes == {
        ImportOutcome.WITHOUT_EXPECTED: 1,
        ImportOutcome.UNKNOWN_PHOTO: 1,
        ImportOutcome.UNKNOWN_BIN: 2,
        ImportOutcome.LATER_AUDIT: 1,
        # Variances with their audits:
        ImportOutcome.IMPORTED: 1,
        ImportOutcome.UNKNOWN_AUDIT: 2,
    }
    refused = tmp_path / "audits.csv.refused.csv"
    assert report.refused_file == refused
    lines, replaced = refused.read_text(encoding="utf-8").splitlines(), f"audit,{BUCKET},replaced,"
    assert lines[0] == f"{HEADER},line,refused"
    ((number, line),) = [row for row in enumerate(written.splitlines(), 1) if row[1].startswith(replaced)]
    (listed,) = [row for row in lines if row.startswith(replaced)]
    assert listed.startswith(f'{line},{number},"this photo of the bin was never counted here')
    with fresh.connect() as connection:
        audits = connection.execute(select(Audit.bin_id, Audit.quantity).order_by(Audit.id)).all()
        assert audits == [("later", 5), ("known", 4)]

    importing.count("bin-images/unknown.jpg", 2, etag="first")
    importing.expect("unknown", 3)
    assert import_audits(refused, fresh, tmp_path / "left.csv").outcomes[ImportOutcome.IMPORTED] == 2
    with fresh.connect() as connection:
        imported = connection.execute(select(Audit.blind, Audit.audited_at).where(Audit.bin_id == "unknown")).one()
    with records_engine.connect() as connection:
        assert imported == connection.execute(
            select(Audit.blind, Audit.audited_at).where(Audit.bin_id == "unknown")
        ).one()  # fmt: skip


def test_an_imported_audit_does_not_change_the_time_of_the_last_audit(sqlite_records: Engine, tmp_path: Path) -> None:
    """The overview and a metric show the time of the last audit."""
    recorder, file = Recorder(sqlite_records), tmp_path / "audits.csv"
    recorder.count("bin-images/a.jpg", 2, etag="e")
    recorder.count("bin-images/b.jpg", 2, etag="e")
    recorder.audit("b", 2)
    with sqlite_records.connect() as connection:
        before = connection.execute(select(AuditTotal.last_at)).scalar_one()
    file.write_text(f"{HEADER}\n{','.join((GOOD | {'auditor': ''}).values())}\n", encoding="utf-8")
    import_audits(file, sqlite_records)
    with sqlite_records.connect() as connection:
        assert connection.execute(select(AuditTotal.last_at, AuditTotal.audits)).one() == (before, 2)


def test_imported_names_are_normalised_as_at_sign_in(sqlite_records: Engine, tmp_path: Path) -> None:
    Recorder(sqlite_records).count("bin-images/a.jpg", 2, etag="e")
    file = tmp_path / "audits.csv"
    file.write_text(f"{HEADER}\n{','.join((GOOD | {'auditor': 'Ada '}).values())}\n", encoding="utf-8")
    for _ in range(2):
        import_audits(file, sqlite_records)
    with sqlite_records.connect() as connection:
        assert connection.execute(select(Audit.auditor)).scalars().all() == ["Ada"]


GOOD = dict(
    zip(AUDIT_FILE_COLUMNS, f"audit,{BUCKET},a,count,2,,,Ada,1,{AT},bin-images/a.jpg,e,1,,,,,,".split(","), strict=True)
)
DRAW = {"kind": "draw", "answer": "", "quantity": "", "blind": "", "likelihood": "0.5"}
REPEAT = {"kind": "repeat", "answer": "", "quantity": "", "blind": "", "belongs_to": AT}
STEP = {"kind": "variance", "answer": "", "blind": "", "key": "", "etag": "", "expected": "3", "belongs_to": AT}
STEP |= {"step": "counted"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "guess"}, "column kind: 'guess' is not one of audit, draw"),
        ({"bucket": ""}, "column bucket: '' is not the name of a bucket"),
        ({"bin": " "}, "column bin: ' ' is not the id of a bin"),
        ({"answer": "many"}, "column answer: 'many' is not one of count, at_least, cannot_tell, go_and_count"),
        ({"quantity": "2.5"}, "column quantity: '2.5' is not a whole number of 0 to 1,000,000"),
        ({"quantity": ""}, "column quantity: '' is not right: the answer count needs a number of items"),
        ({"answer": "at_least", "quantity": "0"}, "at_least must be 1 or more"),
        ({"reason": "dark"}, "column reason: 'dark' is not one of hidden, packaging"),
        ({"note": "x" * 201}, "is not right: a note has at most 200 characters"),
        ({"blind": "yes"}, "column blind: 'yes' is not 0 or 1"),
        ({"at": "2026-11-20 08:15"}, "column at: '2026-11-20 08:15' is not a time in the past with its offset"),
        ({"at": "2999-01-01T00:00:00+00:00"}, "is not a time in the past"),
        ({"expected": "-1"}, "column expected: '-1' is not a whole number"),
        (DRAW | {"likelihood": "0"}, "column likelihood: '0' is not a number above 0 and at most 1"),
        (DRAW | {"key": ""}, "column key: '' is not the key of a photo"),
        (REPEAT | {"auditor": ""}, "column auditor: '' is not the name of the second auditor"),
        (REPEAT | {"belongs_to": ""}, "column belongs_to: '' is not a time in the past"),
        (STEP | {"step": "lost"}, "column step: 'lost' is not one of counted, approved, rejected, superseded"),
        (STEP | {"step": "superseded"}, "is not one that may follow in this variance: a variance begins with a count"),
        (STEP | {"quantity": ""}, "column quantity: '' is not a whole number"),
        (STEP | {"expected": ""}, "column expected: '' is not a whole number"),
        ({"kind": "known", "quantity": "x"}, "column quantity: 'x' is not a whole number"),
        ({"auditor": "x" * 101}, "is not right: a name has at most 100 characters"),
        ({"auditor": "a\0b"}, r"column auditor: 'a\x00b' is not text that the records can hold"),
    ],
)
def test_an_invalid_cell_is_named_and_nothing_is_imported(
    sqlite_records: Engine, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    Recorder(sqlite_records).count("bin-images/a.jpg", 2, etag="e")
    file = tmp_path / "audits.csv"
    rows = [",".join(GOOD.values()), ",".join((GOOD | changes).values())]
    file.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
    with pytest.raises(BinwatchError) as raised:
        import_audits(file, sqlite_records)
    first, advice = str(raised.value).splitlines()
    assert first.startswith(f"{file}, line 3, column ")
    assert message in first
    assert advice == "nothing was imported: correct the file, and import again"
    with sqlite_records.connect() as connection:
        assert connection.execute(select(Audit.id)).all() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"bin,quantity\na,1\n", "no column 'kind'; write it with: python -m monitor audits export"),
        (f"{HEADER}\n{',' * 20}\n".encode(), "line 2: more cells than columns"),
        (f'{HEADER}\n"a\n'.encode(), "is not a CSV"),
        (b"\xff\xfeb", "is not text in UTF-8"),
        (None, r"cannot be read \(No such file"),
    ],
)
def test_invalid_files_are_refused(sqlite_records: Engine, tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "audits.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BinwatchError, match=message):
        import_audits(file, sqlite_records)


def test_the_command(sqlite_records: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    recorder, file = Recorder(sqlite_records), tmp_path / "audits.csv"
    rows = [",".join(GOOD.values()), ",".join((GOOD | DRAW).values())]
    file.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
    command = ["audits", "import", str(file)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert refused.stdout.splitlines()[0] == f"{file}: 2 rows"
    assert refused.stdout.splitlines()[1].startswith("not imported, 2: no photo and no expected quantity of this bin")
    recorder.count("bin-images/a.jpg", 2, etag="e")
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stdout.splitlines()) == (0, [f"{file}: 2 rows", "of them, 2: imported"])
    assert not (tmp_path / "audits.csv.refused.csv").exists()
    with sqlite_records.connect() as connection:
        drawn_at = connection.execute(select(AuditDraw.drawn_at)).scalar_one()
    assert drawn_at == datetime(2026, 11, 20, 8, 15, 0, 1, tzinfo=UTC)


def _record_disputed_bins(recorder: Recorder) -> None:
    """Record four bins with a count of 2 and an expected quantity of 3."""
    for bin_id in ("approved", "open", "rejected", "corrected"):
        recorder.count(f"bin-images/{bin_id}.jpg", 2, etag="first")
        recorder.expect(bin_id, 3)


def _audit(engine: Engine, bin_id: str, quantity: int, person: str) -> None:
    add_audit(engine, BUCKET, bin_id, quantity, person, blind=True)


def _decide(engine: Engine, bin_id: str, decision: VarianceDecision, quantity: int | None = None) -> None:
    with engine.connect() as connection:
        open_variance = select(Variance.id).where(Variance.bin_id == bin_id, Variance.closed_at.is_(None))
        number = connection.execute(open_variance).scalar_one()
    decide(engine, number, decision, "Eve", "=as seen", quantity)


def _variances(engine: Engine) -> list[tuple[object, ...]]:
    """Return bin, state and quantity of each variance; check that totals agree and that each count has its audit."""
    with engine.connect() as connection:
        columns = (Variance.bin_id, Variance.state, Variance.quantity)
        variances_by_bin = sorted(tuple(row) for row in connection.execute(select(*columns)))
        totals = select(VarianceTotal.state, VarianceTotal.variances).where(VarianceTotal.variances != 0)
        totals_by_state = {state: variances for state, variances in connection.execute(totals)}  # noqa: C416 (rows are no pairs)
        assert totals_by_state == Counter(state for _, state, _ in variances_by_bin)
        counts = select(VarianceEntry.quantity, Audit.quantity).outerjoin(Audit, Audit.id == VarianceEntry.audit_id)
        rows = connection.execute(counts.where(VarianceEntry.step == VarianceStep.COUNTED)).all()
        assert all(counted == audited for counted, audited in rows)
    return variances_by_bin


def test_variances_second_answers_and_known_quantities_go_with_their_audits(
    records_engine: Engine, fresh: Engine, tmp_path: Path
) -> None:
    exporting, importing, file = Recorder(records_engine), Recorder(fresh), tmp_path / "audits.csv"
    _record_disputed_bins(exporting)
    for bin_id, quantity, person in (
        ("approved", 7, "Ada"), ("open", 5, "Ada"), ("open", 6, "Ben"), ("corrected", 9, "Ada"),
        ("rejected", 4, "+Ben"), ("approved", 7, "Ben"),
    ):  # fmt: skip
        _audit(records_engine, bin_id, quantity, person)
    _decide(records_engine, "approved", VarianceDecision.APPROVED, 7)
    _decide(records_engine, "rejected", VarianceDecision.REJECTED)
    exporting.expect("corrected", 5, at=DAY + timedelta(days=1))
    repeat_bin = next_bin_to_audit(records_engine, "Cleo", 1.0, rng=random.Random(0))
    assert add_known_answers(records_engine, BUCKET, {"open": 6, "rejected": 3}, "=index.csv") == 2
    written = _export(records_engine, file)

    importing.count("bin-images/another.jpg", 1)  # so that ids differ
    _record_disputed_bins(importing)
    importing.expect("corrected", 5, at=DAY + timedelta(days=1))
    assert import_audits(file, fresh).outcomes == {ImportOutcome.IMPORTED: 6 + 1 + 9 + 2}
    assert _export(fresh, tmp_path / "again.csv") == written
    expected = [("approved", "approved", 7), ("corrected", "superseded", None)]
    expected += [("open", "open", None), ("rejected", "rejected", None)]
    assert _variances(fresh) == _variances(records_engine) == expected
    assert import_audits(file, fresh).outcomes == {ImportOutcome.ALREADY_RECORDED: 18}
    assert _export(fresh, tmp_path / "again.csv") == written

    with fresh.connect() as connection:
        repeat = select(AuditRepeat.auditor, Audit.bin_id).join(Audit, Audit.id == AuditRepeat.audit_id)
        assert connection.execute(repeat).all() == [("Cleo", repeat_bin.bin_id)]
        known_answers = connection.execute(select(KnownAnswer.bin_id, KnownAnswer.quantity, KnownAnswer.source)).all()
        assert sorted(known_answers) == [("open", 6, "=index.csv"), ("rejected", 3, "=index.csv")]
    _audit(fresh, "open", 6, "Dan")
    assert ("open", "recounted", 6) in _variances(fresh)


def test_entries_during_an_export_leave_no_row_without_its_audit(
    records_engine: Engine, fresh: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of row is read in its own transaction, and something is entered before each of them."""
    exporting, importing, file = Recorder(records_engine), Recorder(fresh), tmp_path / "audits.csv"
    _record_disputed_bins(exporting)
    _record_disputed_bins(importing)
    _audit(records_engine, "open", 7, "Ada")
    _audit(records_engine, "approved", 3, "Ada")
    entries: Iterator[Callable[[], object]] = iter(
        [
            lambda: _audit(records_engine, "open", 7, "Ben"),
            lambda: _audit(records_engine, "rejected", 5, "Ada"),
            lambda: _audit(records_engine, "corrected", 3, "Ben"),
            lambda: next_bin_to_audit(records_engine, "Cleo", 1.0, rng=random.Random(0)),
            lambda: _audit(records_engine, "rejected", 5, "Cleo"),
        ]
    )

    def read(*arguments: Any) -> Iterator[dict[str, Any]]:
        next(entries)()
        yield from _rows(*arguments)

    monkeypatch.setattr("monitor.export._rows", read)
    _export(records_engine, file)
    assert next(entries, None) is None
    report = import_audits(file, fresh)
    assert report.refused == 0, report.outcomes
    with fresh.connect() as connection:
        assert len(connection.execute(select(Audit.id)).all()) == 6

    monkeypatch.undo()
    written = _export(records_engine, file)
    assert not import_audits(file, fresh).refused
    assert sorted(_export(fresh, tmp_path / "again.csv").splitlines()) == sorted(written.splitlines())
    assert _variances(fresh) == _variances(records_engine)


def test_a_variance_continues_after_an_earlier_import(records_engine: Engine, fresh: Engine, tmp_path: Path) -> None:
    exporting, importing, files = (
        Recorder(records_engine),
        Recorder(fresh),
        [tmp_path / f"{number}.csv" for number in range(2)],
    )
    _record_disputed_bins(exporting)
    _record_disputed_bins(importing)
    _audit(records_engine, "open", 7, "Ada")
    _export(records_engine, files[0])
    _audit(records_engine, "open", 7, "Ben")
    _decide(records_engine, "open", VarianceDecision.APPROVED, 7)
    written = _export(records_engine, files[1])
    for file, state in ((files[0], "open"), (files[1], "approved"), (files[0], "approved")):
        assert not import_audits(file, fresh).refused
        assert [state for _, state, _ in _variances(fresh)] == [state]
    assert _export(fresh, tmp_path / "again.csv") == written


def test_an_imported_variance_is_superseded_if_the_inventory_expects_another_quantity(
    records_engine: Engine, fresh: Engine, tmp_path: Path
) -> None:
    exporting, importing, file = Recorder(records_engine), Recorder(fresh), tmp_path / "audits.csv"
    _record_disputed_bins(exporting)
    _audit(records_engine, "open", 7, "Ada")
    _export(records_engine, file)
    _record_disputed_bins(importing)
    importing.expect("open", 8, at=DAY + timedelta(days=1))
    for outcome in (ImportOutcome.IMPORTED, ImportOutcome.ALREADY_RECORDED):
        assert import_audits(file, fresh).outcomes == {outcome: 2}
        assert _variances(fresh) == [("open", "superseded", None)]


def test_rows_that_contradict_later_records_are_refused(records_engine: Engine, fresh: Engine, tmp_path: Path) -> None:
    exporting, importing, file = Recorder(records_engine), Recorder(fresh), tmp_path / "audits.csv"
    _record_disputed_bins(exporting)
    _record_disputed_bins(importing)
    _audit(records_engine, "open", 7, "Ada")
    _audit(records_engine, "approved", 3, "Ada")
    next_bin_to_audit(records_engine, "Ben", 1.0, rng=random.Random(0))
    add_known_answers(records_engine, BUCKET, {"rejected": 4}, "index.csv")
    lines = _export(records_engine, file).splitlines(keepends=True)
    without_audits = tmp_path / "without.csv"
    without_audits.write_text("".join(line for line in lines if not line.startswith("audit,")), encoding="utf-8")
    report = import_audits(without_audits, fresh)
    assert report.outcomes == {ImportOutcome.UNKNOWN_AUDIT: 2, ImportOutcome.IMPORTED: 1}
    assert report.refused_file is not None

    only_audits = tmp_path / "audits_alone.csv"
    only_audits.write_text("".join(line for line in lines if line.startswith(("kind", "audit,"))), encoding="utf-8")
    assert import_audits(only_audits, fresh).outcomes == {ImportOutcome.IMPORTED: 2}
    with fresh.begin() as connection:
        counted_audits = select(Audit.id, literal("Cleo"), literal(DAY)).where(Audit.answer == AuditAnswer.COUNT)
        connection.execute(insert(AuditRepeat).from_select(["audit_id", "auditor", "given_at"], counted_audits))
    add_known_answers(fresh, BUCKET, {"rejected": 5}, "index.csv")
    _audit(fresh, "open", 8, "Dan")
    assert import_audits(file, fresh).outcomes == {
        ImportOutcome.ALREADY_RECORDED: 2,
        ImportOutcome.OTHER_REPEAT: 1,
        ImportOutcome.OTHER_VARIANCE: 1,
        ImportOutcome.LATER_KNOWN_ANSWER: 1,
    }
    assert _variances(fresh) == [("open", "open", None)]


def test_a_file_without_variances_is_imported(sqlite_records: Engine, tmp_path: Path) -> None:
    Recorder(sqlite_records).count("bin-images/a.jpg", 2, etag="e")
    file, items = tmp_path / "audits.csv", list(GOOD.items())[:-3]
    file.write_text("\n".join(",".join(row) for row in zip(*items, strict=True)), encoding="utf-8")
    assert import_audits(file, sqlite_records).outcomes == {ImportOutcome.IMPORTED: 1}
