"""Files of `monitor audits export` and the labels that the trainer reads from them."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from typer.testing import CliRunner

from binwatch.audit_file import RowKind
from binwatch.errors import BinwatchError, Reason
from binwatch.records.audits import AuditAnswer, add_audit
from binwatch.records.draws import draw
from binwatch.records.repeats import add_known_answers
from binwatch.records.tables import AuditDraw
from monitor.__main__ import app
from monitor.export import export_audits
from monitor.records import Records
from tests.monitor.conftest import Recorder
from tests.monitor.drifting import BUCKET
from trainer.prepare.lists import LabelOmission, read_audits


@pytest.fixture
def records(sqlite_records: Engine) -> Records:
    return Records(sqlite_records.url.render_as_string(hide_password=False))


def test_the_trainer_reads_exported_audits(recorder: Recorder, records: Records, tmp_path: Path) -> None:
    odd = '=1+2, "quoted" — ü'
    for bin_id in ("00123", odd):
        recorder.pair(bin_id, predicted=2, expected=3)
    draw(recorder.engine, rng=random.Random(0))
    recorder.audit("00123", 3)
    recorder.audit("00123", 17)
    recorder.audit(odd, 0)
    recorder.count("bin-images/elsewhere.jpg", 1, bucket="other")
    done = export_audits(records, BUCKET, tmp_path / "audits.csv")
    assert done.rows == {RowKind.AUDIT: 3, RowKind.DRAW: 1, RowKind.VARIANCE: 2}
    labels = read_audits(tmp_path / "audits.csv")
    assert labels.quantities == {"00123": 17, odd: 0}
    assert labels.left_out == {LabelOmission.CORRECTED: 1}
    with (tmp_path / "audits.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["draw", "variance", "variance", "audit", "audit", "audit"]
    assert rows[0].items() >= {"answer": "", "likelihood": "1.0", "latest_photo": "1"}.items()
    assert rows[1].items() >= {"bin": "00123", "step": "counted", "quantity": "17", "belongs_to": rows[4]["at"]}.items()
    assert rows[3].items() >= {"quantity": "3", "expected": "3", "latest_photo": "1", "blind": "1"}.items()
    assert rows[5]["bin"] == f"'{odd}"
    assert [path.name for path in tmp_path.glob("audits*")] == ["audits.csv"]


def test_an_audit_does_not_label_another_photo(recorder: Recorder, records: Records, tmp_path: Path) -> None:
    recorder.count("bin-images/a.jpg", 1, etag="first")
    recorder.audit("a", 1)
    recorder.count("bin-images/a.jpg", 2, etag="second")
    recorder.count("bin-images/b.jpg", 1, etag="same")
    recorder.audit("b", 4)
    recorder.count("bin-images/b.jpg", 2, etag="same", model="newer")
    recorder.count("bin-images/c.jpg", reason=Reason.TRUNCATED)
    recorder.audit("c", 4)
    export_audits(records, BUCKET, tmp_path / "audits.csv")
    labels = read_audits(tmp_path / "audits.csv")
    assert labels.quantities == {"b": 4}
    assert labels.left_out == {LabelOmission.REPLACED: 1, LabelOmission.NO_COUNT: 1}


def test_only_blind_audits_are_labels_by_default(recorder: Recorder, records: Records, tmp_path: Path) -> None:
    answers = {"hidden": AuditAnswer.AT_LEAST, "unclear": AuditAnswer.CANNOT_TELL, "far": AuditAnswer.GO_AND_COUNT}
    for bin_id in ("blind", "sighted", "both", "corrected", *answers):
        recorder.pair(bin_id, predicted=2, expected=3)
        if bin_id != "sighted":
            recorder.audit(bin_id, 4)
    recorder.audit("sighted", 3, blind=False)
    add_audit(recorder.engine, BUCKET, "both", 4, "Ben")
    add_audit(recorder.engine, BUCKET, "both", None, "Cleo", answer=AuditAnswer.CANNOT_TELL)
    recorder.audit("corrected", 3, blind=False)
    for bin_id, answer in answers.items():
        recorder.audit(bin_id, 5 if answer.has_quantity else None, answer=answer)
    file = tmp_path / "audits.csv"
    export_audits(records, BUCKET, file)
    labels = read_audits(file)
    assert labels.quantities == {"blind": 4, "both": 4} | dict.fromkeys(answers, 4)  # not withdrawn
    without_number = {f"the answer is {answer}, which is not a number of all items": 1 for answer in answers.values()}
    assert labels.left_out == without_number | {
        LabelOmission.SIGHTED: 4,
        LabelOmission.CONTRADICTED: 1,
    }
    sighted = read_audits(file, sighted=True)
    assert sighted.quantities == labels.quantities | {"corrected": 3, "sighted": 3}
    cannot_tell = f"the answer is {AuditAnswer.CANNOT_TELL}, which is not a number of all items"
    assert sighted.left_out == without_number | {cannot_tell: 2, LabelOmission.CORRECTED: 2}


def test_a_withdrawn_number_is_no_label(recorder: Recorder, records: Records, tmp_path: Path) -> None:
    recorder.pair("a", 2, 3)
    for answer, quantity in ((AuditAnswer.COUNT, 4), (AuditAnswer.GO_AND_COUNT, None)):
        add_audit(recorder.engine, BUCKET, "a", quantity, "Ada", answer=answer)
    export_audits(records, BUCKET, tmp_path / "audits.csv")
    assert read_audits(tmp_path / "audits.csv", sighted=True).quantities == {}


def test_an_unwritable_file_is_named(recorder: Recorder, records: Records, tmp_path: Path) -> None:
    recorder.pair("a", 1, 1)
    with pytest.raises(BinwatchError, match=r"nowhere/audits\.csv: cannot be written"):
        export_audits(records, BUCKET, tmp_path / "nowhere" / "audits.csv")


def test_the_command_reports_the_written_rows(
    recorder: Recorder, sqlite_records: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    file = tmp_path / "audits.csv"
    command = ["audits", "export", str(file), "--bucket", BUCKET]
    assert CliRunner().invoke(app, command).exit_code == 1, "an empty file is no backup"
    recorder.pair("a", 1, 2)
    recorder.audit("a", 2)
    recorder.audit("a", 3)
    add_known_answers(recorder.engine, BUCKET, {"a": 3}, "index.csv")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    summary = "2 audits, 0 random draws, 1 step of a variance, 1 known quantity"
    assert result.stdout.splitlines() == [f"{file}: {summary}"]

    printed = CliRunner().invoke(app, ["audits", "export", "--bucket", BUCKET])
    assert printed.stdout.splitlines() == file.read_text(encoding="utf-8").splitlines()
    assert printed.stderr.splitlines() == [summary]


def test_a_draw_on_the_command_line_shows_no_numbers(
    recorder: Recorder, sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    nothing = CliRunner().invoke(app, ["audits", "next"])
    assert "no bin to draw" in str(nothing.exception)
    recorder.pair("00123", 3, 4)
    drawn = CliRunner().invoke(app, ["audits", "next", "--auditor", "Ada"])
    assert drawn.stdout.splitlines() == ["bin 00123", f"photo s3://{BUCKET}/bin-images/00123.jpg"]
    assert drawn.stderr.splitlines() == [
        f"answer it: python -m monitor audit --blind --auditor Ada --bucket {BUCKET} 00123 NUMBER"
    ]
    with recorder.engine.connect() as connection:
        assert connection.execute(select(AuditDraw.bin_id, AuditDraw.likelihood)).all() == [("00123", 1.0)]
    recorder.pair("00124", 3, 4)
    another = CliRunner().invoke(app, ["audits", "next", "--skip", "00123", "--bucket", BUCKET])
    assert another.stdout.splitlines()[0] == "bin 00124"


def test_rank_updates_p_values(recorder: Recorder, sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    recorder.pair("a", 1, 2)
    recorder.calibrate()
    for number in ("1 bin", "0 bins"):
        message = f"{number} judged by their model's present calibration"
        assert message in CliRunner().invoke(app, ["rank"]).stdout
