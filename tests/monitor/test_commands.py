"""The monitor's commands as an operator runs them: processes, ports, signals and exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, select

from binwatch.records.audits import AuditAnswer
from binwatch.records.tables import Audit
from monitor.__main__ import main
from tests.monitor.conftest import BUCKET, Recorder

COMMAND = [sys.executable, "-m", "monitor"]
ROOT = Path(__file__).parents[2]


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in its own process, with real exit codes and tracebacks."""
    variables = os.environ | environment
    return subprocess.run([*COMMAND, *arguments], env=variables, cwd=ROOT, capture_output=True, text=True, timeout=60)


@dataclass(frozen=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def _invoke(*arguments: str, **environment: str) -> Result:
    """Run the command in this process, which saves the seconds of starting a new one."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["monitor", *arguments])
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    return Result(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@contextmanager
def _serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, "serve", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _first_line(process: subprocess.Popen[str]) -> str:
    """Return the line that is printed once the server listens; pytest's timeout is the deadline."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture(autouse=True)
def _database(sqlite_records: Engine, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))


def test_serve_prints_its_address_writes_the_port_file_and_exits_cleanly(
    known_records: Recorder, tmp_path: Path
) -> None:
    port_file = tmp_path / "port"
    with _serving("--port", "0", "--port-file", str(port_file)) as process:
        line = _first_line(process)
        address = re.fullmatch(r"monitor: (http://127\.0\.0\.1:(\d+)/)", line)
        assert address
        assert port_file.read_text(encoding="ascii").strip() == address[2]
        assert httpx.get(address[1]).status_code == 200
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    # The first drift check may or may not run before the end; it finds no model to compare with.
    lines = [line for line in errors.splitlines() if "the card of model" not in line]
    assert (output, lines) == ("", [])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("port")] == ["port"]


def test_serve_takes_host_and_port_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_MONITOR_HOST", "localhost")
    monkeypatch.setenv("BINWATCH_MONITOR_PORT", "0")
    with _serving() as process:
        address = _first_line(process).removeprefix("monitor: ")
        assert httpx.get(f"{address}healthz").json() == {"status": "ok"}


def test_serve_logs_the_start_and_end_of_an_outage_once(tmp_path: Path) -> None:
    database, moved_database = tmp_path / "records.db", tmp_path / "away.db"
    with _serving("--port", "0") as process:
        address = _first_line(process).removeprefix("monitor: ")
        database.rename(moved_database)
        for _ in range(3):
            assert httpx.get(f"{address}healthz").status_code == 503
        moved_database.rename(database)
        assert httpx.get(f"{address}healthz").status_code == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    lines = errors.strip().splitlines()
    assert len(lines) == 2
    assert "unable to open database file" in lines[0]
    assert "can be read again" in lines[1]


def test_an_outdated_schema_is_an_error_with_a_remedy(sqlite_records: Engine) -> None:
    with sqlite_records.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    for command in ("serve", "status"):
        result = _invoke(command)
        assert result.exit_code == 1
        assert "python -m worker migrate" in result.stderr


def test_a_missing_database_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    result = _run("serve", BINWATCH_DATABASE_URL=f"sqlite:///{tmp_path / 'none.db'}")
    assert result.returncode == 1
    assert "none.db" in result.stderr
    assert "it does not exist; python -m worker migrate creates it" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"BINWATCH_DATABASE_URL": "sqlite://"}, "in memory"),
        ({"BINWATCH_DATABASE_URL": "mysql://x/y"}, "'mysql' is not supported"),
        ({"BINWATCH_DATABASE_URL": "postgresql://user:secret@127.0.0.1:9/x"}, "127.0.0.1"),
        ({"BINWATCH_MONITOR_PRT": "1"}, "did you mean BINWATCH_MONITOR_PORT"),
    ],
)
def test_bad_settings_are_named_without_passwords(variables: dict[str, str], message: str) -> None:
    result = _invoke("serve", **variables)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "secret" not in result.output


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = _invoke("serve", "--port", port)
    assert result.exit_code == 1
    assert f"port {port}" in result.stderr


def test_a_port_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    result = _run("serve", "--port", "0", "--port-file", str(tmp_path / "none" / "port"))
    assert result.returncode == 1
    assert str(tmp_path / "none") in result.stderr
    assert "Traceback" not in result.stderr


def test_status_prints_the_table(known_records: Recorder) -> None:
    result = _invoke("status", COLUMNS="100")
    assert result.exit_code == 0
    total = next(line for line in result.stdout.splitlines() if " all " in line)
    assert re.findall(r"[\d.]+", total) == ["6", "2", "3", "1", "50", "83", "0.67"]
    assert "Photos: 7 counted, 1 not there (any more), 1 file ends early" in result.stdout


def test_bins_to_audit_are_listed_without_numbers(known_records: Recorder) -> None:
    for direction in ("either", "surplus"):  # would reveal that items are missing from bin f
        queue = _invoke("audits", "queue", BINWATCH_FLAG_DIRECTION=direction).stdout.splitlines()
        assert queue == ["bucket,bin_id,photo_id", f"{BUCKET},f,6"]
    known_records.audit("f", None, answer=AuditAnswer.GO_AND_COUNT)
    known_records.audit("e", None, answer=AuditAnswer.GO_AND_COUNT)  # which agrees
    assert len(_invoke("audits", "queue").stdout.splitlines()) == 1
    lines = _invoke("audits", "queue", "--answer", "go_and_count").stdout.splitlines()[1:]
    assert sorted(lines) == [f"{BUCKET},e,5", f"{BUCKET},f,6"]


def test_known_answers_are_loaded_and_auditor_accuracy_is_printed(known_records: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    file.write_text("key,label\nf,5\nh,2\n", encoding="utf-8")
    columns = ("--bin-column", "key", "--quantity-column", "label")
    result = _invoke("audits", "known", str(file), *columns, BINWATCH_BUCKET=BUCKET)
    assert (result.exit_code, result.output.splitlines()[1:]) == (
        0, ["2 rows: 1 matches a photo, 1 does not ('h')", "1 bin recorded, 0 known from an earlier import"],
    )  # fmt: skip
    assert _invoke("audits", "agreement").stdout.splitlines()[1:] == []
    assert _invoke("audit", "f", "6", "--auditor", "Ada", "--blind", BINWATCH_BUCKET=BUCKET).exit_code == 0
    header, row = _invoke("audits", "agreement").stdout.splitlines()
    ada = dict(zip(header.split(","), row.split(","), strict=True))
    assert (ada["auditor"], ada["counted_twice"], ada["known_quantities"]) == ("Ada", "0", "1")
    assert (ada["right"], float(ada["right_high"]), ada["right_within_one"], ada["as_others"]) == (
        "0.0", pytest.approx(0.975), "1.0", "",
    )  # fmt: skip
    file.write_text("key,label\nh,2\n", encoding="utf-8")
    assert _invoke("audits", "known", str(file), *columns, BINWATCH_BUCKET=BUCKET).exit_code == 1


def test_audit_and_expect_record_and_confirm(known_records: Recorder, tmp_path: Path) -> None:
    result = _invoke("audit", "c", "3", "--auditor", "Ada", BINWATCH_BUCKET=BUCKET)
    judged = "counted 1 (under); expected 3 (exact)"
    assert result.output == f"Recorded: 3 found, with the numbers in sight; {judged}\n"
    hidden = ("--answer", "at_least", "--reason", "hidden", "--note", "a box in front", "--blind")
    result = _invoke("audit", "c", "2", *hidden, BINWATCH_BUCKET=BUCKET)
    assert result.output == "Recorded: at least 2 found, blind; counted 1 (under); expected 3\n"
    result = _invoke("audit", "c", "--answer", "go_and_count", BINWATCH_BUCKET=BUCKET)
    assert result.output.startswith("Recorded: somebody must go and count, with the numbers in sight; counted 1; expe")
    result = _invoke("audit", "c", BINWATCH_BUCKET=BUCKET)
    assert (result.exit_code, "not recorded: the answer count needs a number" in result.stderr) == (1, True)
    result = _invoke("audit", "nobody", "3", BINWATCH_BUCKET=BUCKET)
    assert result.exit_code == 1
    assert "'nobody'" in result.stderr
    file = tmp_path / "stock.csv"
    file.write_text("bin,quantity\ng,4\nh,-1\n", encoding="utf-8")
    result = _invoke("expect", str(file), BINWATCH_BUCKET=BUCKET)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"{file}: bin from 'bin', quantity from 'quantity' (commas between columns, UTF-8)",
        "2 rows: 1 matches a photo, 1 refused",
        f"refused: 1 negative (row 3, 'h'); listed in {file}.refused.csv",
        "1 bin recorded, 0 known from an earlier import",
    ]


def test_auditor_names_are_normalised_as_at_sign_in(known_records: Recorder) -> None:
    for auditor in (" Ada ", "  "):
        assert _invoke("audit", "c", "3", "--auditor", auditor, BINWATCH_BUCKET=BUCKET).exit_code == 0
    with known_records.engine.connect() as connection:
        names = connection.execute(select(Audit.auditor).order_by(Audit.id.desc()).limit(2)).scalars().all()
    assert names == [None, "Ada"]
    for command in (("audit", "c", "3"), ("audits", "next"), ("audits", "queue", "--recount")):
        result = _invoke(*command, "--auditor", "x" * 101, BINWATCH_BUCKET=BUCKET)
        assert (result.exit_code, "a name has at most 100" in result.stderr) == (2, True)
    result = _invoke("variances", "reject", "1", "--note", "moved", "--approver", " ")
    assert (result.exit_code, "it is empty; name the person" in result.stderr) == (2, True)


def test_expect_names_the_missing_file() -> None:
    result = _invoke("expect", "none.csv")
    assert result.exit_code == 1
    assert "none.csv" in result.stderr


def test_status_prints_json(known_records: Recorder) -> None:
    summary = json.loads(_invoke("status", "--json").stdout)
    assert summary["agreement"]["total"]["exact"] == 3


def test_status_of_empty_records_and_unknown_models(sqlite_records: Engine) -> None:
    assert "Nothing has been recorded yet" in _invoke("status").stdout
    result = _invoke("status", "--model", "x")
    assert result.exit_code == 1
    assert "none yet" in result.stderr


def test_a_hung_database_is_reported_within_the_deadline() -> None:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        result = _run("status", BINWATCH_DATABASE_URL=f"postgresql://127.0.0.1:{port}/x")
    assert result.returncode == 1
    assert "cannot be read" in result.stderr


def test_the_monitor_imports_neither_worker_nor_trainer() -> None:
    program = (
        "import sys, monitor.__main__, monitor.app, monitor.services;"
        "print(sorted({'worker', 'trainer', 'celery', 'kombu', 'torch', 'onnxruntime'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_serve_logs_json_if_configured(sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_LOG_FORMAT", "json")
    with _serving("--host", "0.0.0.0", "--port", "0") as process:
        assert process.stderr is not None
        lines = [json.loads(process.stderr.readline()) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert output == ""
    assert [json.loads(line)["message"] for line in errors.splitlines() if "the card of model" not in line] == []
    assert [(line["level"], line["logger"]) for line in lines] == [("warning", "monitor"), ("info", "monitor")]
    assert re.fullmatch(r"listening on http://0\.0\.0\.0:\d+/", lines[1]["message"])
