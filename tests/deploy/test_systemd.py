"""Tests of the units in deploy/systemd and of docs/servers.md: commands, settings and files that they name exist."""

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
COMMANDS = {
    "binwatch-beat": ["worker beat"],
    "binwatch-migrate": ["worker migrate", "worker setup"],
    "binwatch-monitor": ["monitor serve"],
    "binwatch-worker": ["worker run"],
}


def _read_unit(path: Path) -> dict[str, list[str]]:
    """Directive → its values in order. configparser does not support repeated directives."""
    directives: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            directives.setdefault(name, []).append(value)
    return directives


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    unit: Path = request.param
    return unit


def test_each_unit_starts_existing_command(path: Path) -> None:
    commands = _read_unit(path)["ExecStart"]
    assert [command.removeprefix(PROGRAM) for command in commands] == COMMANDS[path.stem]
    for command in commands:
        check_command(command.removeprefix(PROGRAM).split())


def test_all_units_are_tested() -> None:
    assert [path.stem for path in UNITS] == sorted(COMMANDS)


def test_settings_exist(path: Path) -> None:
    environment = dict(value.split("=", 1) for value in _read_unit(path).get("Environment", []))
    assert {name for name in environment if name.startswith(PREFIX)} <= FIELDS
    folders = {value.removeprefix("/var/lib/") for value in environment.values() if value.startswith("/var/lib/")}
    state_folders = _read_unit(path).get("StateDirectory", [])
    assert all(any(Path(folder).is_relative_to(each) for each in state_folders) for folder in folders), "not writable"


def test_units_are_confined(path: Path) -> None:
    unit = _read_unit(path)
    assert unit["User"] == ["binwatch"]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["CapabilityBoundingSet"] == [""]


def test_services_are_restarted_without_limit() -> None:
    for path in UNITS:
        unit = _read_unit(path)
        if unit["Type"] != ["oneshot"]:
            assert (unit["Restart"], unit["StartLimitIntervalSec"]) == (["always"], ["0"]), path.stem


def test_stop_timeouts() -> None:
    stop_s = {path.stem: int(_read_unit(path).get("TimeoutStopSec", ["0"])[0]) for path in UNITS}
    assert stop_s["binwatch-worker"] == 120  # as docs/servers.md says, and as on ECS
    assert stop_s["binwatch-monitor"] >= 3 * 5  # monitor.server.GRACE_S
    assert all(_read_unit(path).get("KillSignal", ["SIGTERM"]) == ["SIGTERM"] for path in UNITS)


def test_each_unit_has_its_own_environment_file() -> None:
    files = {path.stem: _read_unit(path)["EnvironmentFile"] for path in UNITS}
    for name, (common, own) in files.items():
        assert (common, own) == ("/etc/binwatch/common.env", f"/etc/binwatch/{name.removeprefix('binwatch-')}.env")
        assert f"`{Path(own).name}`" in DOC


def test_systemd_verifies_units(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / path.name
    # Without these replacements, systemd-analyze would complain that Binwatch and its docs are not installed.
    text = re.sub(r"^ExecStart=.*", "ExecStart=/bin/true", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    copy.write_text(re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE), encoding="utf-8")
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_docs_name_existing_settings_and_commands() -> None:
    assert set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", DOC)) <= FIELDS
    commands = set(re.findall(r"python -m ((?:worker|monitor) [a-z-]+(?: [a-z]+)?)", DOC))
    commands |= set(re.findall(r"binwatch ((?:worker|monitor) [a-z-]+)", DOC))
    assert {"worker migrate", "worker setup", "worker run", "worker beat", "monitor serve"} <= commands
    for command in commands:
        check_command(command.split())


def test_docs_links() -> None:
    for path in (ROOT / "README.md", ROOT / "docs" / "operations.md"):
        assert "servers.md)" in path.read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w./-]+\.md)", DOC))
    assert all((ROOT / "docs" / name).is_file() for name in linked)
    named = set(re.findall(r"(?<![\w/])deploy/[\w./-]*\w", DOC))
    assert all((ROOT / name).exists() for name in named)
