"""The command `binwatch`: subcommands, help, settings and exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile

import pytest

from binwatch.__main__ import SUBCOMMANDS, main
from binwatch.errors import BinwatchError, BundleError, ObjectsError, SettingsError
from binwatch.settings import Settings
from monitor.records import RecordsDown
from tests.conftest import ROOT, UNREACHABLE_URL
from trainer.display import Display


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["binwatch", *arguments])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_names_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert _run(monkeypatch, *arguments) == 0
    output = capsys.readouterr().out
    assert all(f"  {name} " in output for name in SUBCOMMANDS)


def test_settings_command_marks_changed_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BINWATCH_BATCH_SIZE", "4")
    monkeypatch.setenv("BINWATCH_DATABASE_URL", "postgresql+psycopg://binwatch:pass-word@db/binwatch")
    assert _run(monkeypatch, "settings") == 0
    printed = capsys.readouterr().out
    assert all(f"{variable}=" in printed for variable in Settings.variables())
    assert "pass-word" not in printed
    assert _run(monkeypatch, "settings", "--changed") == 0
    lines = capsys.readouterr().out.splitlines()[::2]
    changed = [line for line in lines if not line.startswith("BINWATCH_LOG_LEVEL")]
    assert changed == [
        "BINWATCH_DATABASE_URL=********  (default: sqlite:///binwatch.db)",
        "BINWATCH_BATCH_SIZE=4  (default: 16)",
    ]


def test_settings_command_with_defaults_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "settings", "--changed") == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "no setting differs from its default\n")


@pytest.mark.parametrize("option", [["--log-level", "warnin"], ["--log-level=warnin"]])
def test_the_log_level_is_a_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    monkeypatch.setenv("BINWATCH_LOG_LEVEL", "debug")  # and taken back at the end
    assert _run(monkeypatch, *option, "monitor", "status") == 2
    assert "BINWATCH_LOG_LEVEL" in capsys.readouterr().err
    assert os.environ["BINWATCH_LOG_LEVEL"] == "warnin"


@pytest.mark.parametrize("quiet", ["-q", "--quiet", "--log-level=warning"])
def test_quiet_leaves_results_and_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, quiet: str
) -> None:
    monkeypatch.setenv("BINWATCH_LOG_LEVEL", "info")  # and taken back at the end
    photo = next((ROOT / "samples" / "bin-images").glob("*.jpg"))
    (tmp_path / "photos").mkdir()
    copyfile(photo, tmp_path / "photos" / photo.name)
    (tmp_path / "stock.csv").write_text(f"bin,quantity\n{photo.stem},3\n")
    assert _run(monkeypatch, quiet, "worker", "count", "--csv", str(photo)) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("photo,count")
    assert captured.err == ""
    out = tmp_path / "wrong.csv"
    check = ["check", str(tmp_path / "photos"), "--expected", str(tmp_path / "stock.csv"), "--out", str(out)]
    assert _run(monkeypatch, quiet, *check) == 0
    assert capsys.readouterr() == ("", "")
    assert out.exists()
    assert _run(monkeypatch, quiet, "worker", "count", str(tmp_path / "none")) == 2
    assert "none" in capsys.readouterr().err


def test_quiet_keeps_the_trainers_warnings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BINWATCH_LOG_LEVEL", "warning")
    display = Display()
    display.say("trained")
    display.warn("too few photos")
    assert list(display.track([1, 2], 2, "photos")) == [1, 2]
    assert capsys.readouterr() == ("", "warning: too few photos\n")


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("binwatch mon", {"monitor"}),
        ("binwatch monitor exp", {"expect"}),
        ("binwatch monitor audits e", {"export"}),
        ("binwatch check --exp", {"--expected"}),
        ("binwatch worker ba", {"backfill"}),
    ],
)
def test_completion(line: str, completed: set[str]) -> None:
    """Request completions like the bash script of `--show-completion`."""
    shell = {"_BINWATCH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "binwatch"], env=os.environ | shell, capture_output=True, text=True, timeout=60
    )
    assert set(done.stdout.split()) == completed, done.stderr


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"binwatch {version('binwatch')}\n"


@pytest.mark.parametrize("part", ["check", "worker", "monitor"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str, option: str
) -> None:
    assert _run(monkeypatch, part, option) == 0
    assert f"Usage: binwatch {part}" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["worker", "count"], ["monitor", "audits", "export"]])
def test_help_says_where_settings_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert _run(monkeypatch, *command, "--help") == 0
    assert "`binwatch settings` prints all" in " ".join(capsys.readouterr().out.split())


def test_usage_errors_exit_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _run(monkeypatch, "chekc") == 2
    assert "there is no command 'chekc'" in capsys.readouterr().err
    assert _run(monkeypatch, "worker", "count", str(tmp_path)) == 2
    assert "no photos here" in capsys.readouterr().err
    assert _run(monkeypatch, "worker", "count", "--no-such-option") == 2
    monkeypatch.setenv("BINWATCH_BATCH_SIEZ", "4")
    assert _run(monkeypatch, "monitor", "status") == 2
    assert "did you mean BINWATCH_BATCH_SIZE?" in capsys.readouterr().err


def test_outages_exit_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", UNREACHABLE_URL)
    assert _run(monkeypatch, "worker", "count", "s3://bucket/") == 3
    assert "check the endpoint, the credentials and the network" in capsys.readouterr().err
    monkeypatch.setenv("BINWATCH_DATABASE_URL", f"sqlite:///{tmp_path}/none.db")
    assert _run(monkeypatch, "monitor", "status") == 3


def test_exit_status_by_cause() -> None:
    assert [cause.exit_status for cause in (BinwatchError, SettingsError, BundleError)] == [2, 2, 2]
    assert [cause.exit_status for cause in (ObjectsError, RecordsDown)] == [3, 3]


def test_help_of_check_imports_no_heavy_packages() -> None:
    program = (
        "import sys; sys.argv = ['binwatch', 'check', '--help']\n"
        "from binwatch.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'onnxruntime', 'celery', 'fastapi', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
