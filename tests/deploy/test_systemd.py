"""The units of deploy/systemd, and the page about servers of one's own: what they name exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from binwatch.environment import PREFIX
from binwatch.settings import Settings
from tests.deploy.commands import check_command

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
DOC = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
FIELDS = set(Settings.variables())
PROGRAM = "/opt/binwatch/venv/bin/binwatch "
STARTS = {
    "binwatch-beat": ["worker beat"],
    "binwatch-migrate": ["worker migrate", "worker setup"],
    "binwatch-monitor": ["monitor serve"],
    "binwatch-worker": ["worker run"],
}


def _read(path: Path) -> dict[str, list[str]]:
    """Each directive with its values, in order; configparser knows no directive twice."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_each_starts_a_command_that_exists(path: Path) -> None:
    commands = _read(path)["ExecStart"]
    assert [command.removeprefix(PROGRAM) for command in commands] == STARTS[path.stem]
    for command in commands:
        check_command(command.removeprefix(PROGRAM).split())


def test_none_is_missing() -> None:
    assert [path.stem for path in UNITS] == sorted(STARTS)


def test_settings_exist(path: Path) -> None:
    given = dict(value.split("=", 1) for value in _read(path).get("Environment", []))
    assert {name for name in given if name.startswith(PREFIX)} <= FIELDS
    folders = {value.removeprefix("/var/lib/") for value in given.values() if value.startswith("/var/lib/")}
    kept = _read(path).get("StateDirectory", [])
    assert all(any(Path(folder).is_relative_to(one) for one in kept) for folder in folders), "nothing else is writable"


def test_each_is_kept_within_bounds(path: Path) -> None:
    unit = _read(path)
    assert unit["User"] == ["binwatch"]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["CapabilityBoundingSet"] == [""]


def test_what_runs_all_the_time_is_started_again_for_as_long_as_it_takes() -> None:
    for path in UNITS:
        unit = _read(path)
        if unit["Type"] != ["oneshot"]:
            assert (unit["Restart"], unit["StartLimitIntervalSec"]) == (["always"], ["0"]), path.stem


def test_each_has_the_time_that_its_end_takes() -> None:
    stop_s = {path.stem: int(_read(path).get("TimeoutStopSec", ["0"])[0]) for path in UNITS}
    assert stop_s["binwatch-worker"] == 120  # as docs/servers.md says, and as on ECS
    assert stop_s["binwatch-monitor"] >= 3 * 5  # monitor.server.GRACE_S
    assert all(_read(path).get("KillSignal", ["SIGTERM"]) == ["SIGTERM"] for path in UNITS)


def test_secrets_are_in_files_of_their_own() -> None:
    files = {path.stem: _read(path)["EnvironmentFile"] for path in UNITS}
    for name, (common, own) in files.items():
        assert (common, own) == ("/etc/binwatch/common.env", f"/etc/binwatch/{name.removeprefix('binwatch-')}.env")
        assert f"`{Path(own).name}`" in DOC


def test_systemd_understands_them(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    copy = tmp_path / path.name
    # Where Binwatch is not installed, systemd-analyze misses the program and the page.
    text = re.sub(r"^ExecStart=.*", "ExecStart=/bin/true", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    copy.write_text(re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_names_settings_and_commands_that_exist() -> None:
    assert set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", DOC)) <= FIELDS
    commands = set(re.findall(r"python -m ((?:worker|monitor) [a-z-]+(?: [a-z]+)?)", DOC))
    commands |= set(re.findall(r"binwatch ((?:worker|monitor) [a-z-]+)", DOC))
    assert {"worker migrate", "worker setup", "worker run", "worker beat", "monitor serve"} <= commands
    for command in commands:
        check_command(command.split())


def test_the_page_and_what_leads_to_it() -> None:
    for path in (ROOT / "README.md", ROOT / "docs" / "operations.md"):
        assert "servers.md)" in path.read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w./-]+\.md)", DOC))
    assert all((ROOT / "docs" / name).is_file() for name in linked)
    named = set(re.findall(r"(?<![\w/])deploy/[\w./-]*\w", DOC))
    assert all((ROOT / name).exists() for name in named)
