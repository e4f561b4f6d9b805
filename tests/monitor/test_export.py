"""Audits become labels: what `monitor audits export` writes, the trainer reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from binwatch.errors import BinwatchError, Reason
from binwatch.records.audits import AuditAnswer, add_audit
from monitor.__main__ import app
from monitor.export import OmissionReason, export_audits
from monitor.records import Records
from tests.monitor.conftest import Recorder
from tests.monitor.drifting import BUCKET
from trainer.prepare.lists import read_audits


@pytest.fixture
def records(sqlite_records: Engine) -> Records:
    return Records(sqlite_records.url.render_as_string(hide_password=False))


def test_the_trainer_reads_what_was_exported(recorder: Recorder, records: Records, tmp_path: Path) -> None:
    odd = '=1+2, "quoted" — ü'
    for bin_id in ("00123", odd):
        recorder.pair(bin_id, predicted=2, expected=3)
    recorder.audit("00123", 3)
    recorder.audit("00123", 17)
    recorder.audit(odd, 0)
    done = export_audits(records, BUCKET, tmp_path / "audits.csv")
    assert (done.bins, dict(+done.left_out)) == (2, {OmissionReason.CORRECTED: 1})
    assert read_audits(tmp_path / "audits.csv") == {"00123": 17, odd: 0}
    assert (tmp_path / "audits.csv").read_text(encoding="utf-8").splitlines()[-1].startswith("\"'=1+2, ")
    assert [path.name for path in tmp_path.glob("audits*")] == ["audits.csv"]


def test_an_audit_is_no_label_of_another_photo(recorder: Recorder, records: Records, tmp_path: Path) -> None:
    recorder.count("bin-images/a.jpg", 1, etag="first")
    recorder.audit("a", 1)
    recorder.count("bin-images/a.jpg", 2, etag="second")
    recorder.count("bin-images/b.jpg", 1, etag="same")
    recorder.audit("b", 4)
    recorder.count("bin-images/b.jpg", 2, etag="same", model="newer")
    recorder.count("bin-images/c.jpg", reason=Reason.TRUNCATED)
    recorder.audit("c", 4)
    recorder.pair("line\nbreak", predicted=1, expected=1)
    recorder.audit("line\nbreak", 1)
    recorder.count("bin-images/elsewhere.jpg", 1, bucket="other")
    done = export_audits(records, BUCKET, tmp_path / "audits.csv")
    assert dict(+done.left_out) == {OmissionReason.REPLACED: 1, OmissionReason.NO_COUNT: 1, OmissionReason.ODD_NAME: 1}
    assert read_audits(tmp_path / "audits.csv") == {"b": 4}


def test_only_blind_counts_are_labels_unless_others_are_asked_for(
    recorder: Recorder, records: Records, tmp_path: Path
) -> None:
    for bin_id in ("blind", "sighted", "both", "corrected", "unclear"):
        recorder.pair(bin_id, predicted=2, expected=3)
        if bin_id != "sighted":
            recorder.audit(bin_id, 4)
    recorder.audit("sighted", 3, blind=False)
    add_audit(recorder.engine, BUCKET, "both", 4, "Ben")
    recorder.audit("corrected", 3, blind=False)
    recorder.audit("unclear", 5, answer=AuditAnswer.AT_LEAST)
    file = tmp_path / "audits.csv"
    done = export_audits(records, BUCKET, file)
    assert read_audits(file) == {"blind": 4, "both": 4}
    assert dict(done.left_out) == {
        OmissionReason.SIGHTED: 3,
        OmissionReason.CORRECTED: 1,
        OmissionReason.CONTRADICTED: 1,
        OmissionReason.NO_NUMBER: 1,
    }
    export_audits(records, BUCKET, file, sighted=True)
    assert read_audits(file) == {"blind": 4, "both": 4, "corrected": 3, "sighted": 3}
    rows = [line.rsplit(",", 1) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row[1] for row in rows] == ["blind", "1", "0", "0", "0"]


def test_a_file_that_cannot_be_written_is_named(recorder: Recorder, records: Records, tmp_path: Path) -> None:
    recorder.pair("a", 1, 1)
    with pytest.raises(BinwatchError, match=r"nowhere/audits\.csv: cannot be written"):
        export_audits(records, BUCKET, tmp_path / "nowhere" / "audits.csv")


def test_the_command_says_what_it_left_out(
    recorder: Recorder, sqlite_records: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    file = tmp_path / "audits.csv"
    command = ["audits", "export", str(file), "--bucket", BUCKET]
    assert CliRunner().invoke(app, command).exit_code == 1, "nothing to learn from is no success"
    recorder.pair("a", 1, 2)
    recorder.audit("a", 2)
    recorder.audit("a", 3)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{file}: 1 audited bin", "left out 1: corrected by a later audit"]

    printed = CliRunner().invoke(app, ["audits", "export", "--bucket", BUCKET])
    assert printed.stdout.splitlines() == file.read_text(encoding="utf-8").splitlines()
    assert printed.stderr.splitlines() == ["1 audited bin", "left out 1: corrected by a later audit"]


def test_rank_gives_p_values(recorder: Recorder, sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    recorder.pair("a", 1, 2)
    recorder.calibrate()
    for number in ("1 bin", "0 bins"):
        said = f"{number} judged by their model's present calibration"
        assert said in CliRunner().invoke(app, ["rank"]).stdout
