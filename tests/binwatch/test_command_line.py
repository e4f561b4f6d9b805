"""How commands end."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from binwatch import command_line
from binwatch.errors import BinwatchError

ROOT = Path(__file__).parents[2]


def test_an_error_made_on_purpose_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def app() -> None:
        raise BinwatchError("the disk is full; make room")

    with pytest.raises(SystemExit) as ended:
        command_line.run(app, "demo")
    assert (ended.value.code, capsys.readouterr().err) == (1, "error: the disk is full; make room\n")


def test_an_error_can_be_read_whatever_a_file_says(capsys: pytest.CaptureFixture[str]) -> None:
    def app() -> None:
        raise BinwatchError(f"index.csv, line 2: label '{'x' * 300_000}\x1b[2J' is not a number; correct it")

    with pytest.raises(SystemExit):
        command_line.run(app, "demo")
    said = capsys.readouterr().err
    assert said.startswith("error: index.csv, line 2: label 'xxx")
    assert said.endswith("is not a number; correct it\n")
    assert "characters left out" in said
    assert (len(said.splitlines()), "\x1b" in said) == (1, False)
    assert len(said) < 2_100


def test_a_package_that_is_not_installed_is_named_with_its_extra(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda: importlib.import_module("not_installed.at_all"), "worker,cpu")
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: not_installed is not installed; in Binwatch's repository:"
        " pip install -c requirements.lock '.[worker,cpu]'\n"
    )


def test_a_module_of_our_own_that_is_missing_is_our_mistake() -> None:
    with pytest.raises(ModuleNotFoundError, match="worker"):
        command_line.run(lambda: importlib.import_module("worker.not_there"), "worker,cpu")


PROGRAMS = {"monitor": "monitor", "worker": "worker,cpu", "demo": "demo", "trainer": "trainer"}
NAMES = {
    "PIL": "pillow",
    "amqp": "kombu",
    "anyio": "fastapi",
    "h11": "uvicorn",
    "botocore": "boto3",
    "starlette": "fastapi",
}
"""What brings a module of another name."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_extra_that_is_named_brings_what_is_missing(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For every package that the program, or what it stands on, imports anywhere."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert PROGRAMS[program] in (ROOT / program / "__main__.py").read_text(), "what the program names"
    everywhere = set(map(normal, extras["dependencies"]))
    for package in sorted(name for name in imported_by(program) if normal(name) not in everywhere):
        with pytest.raises(SystemExit):
            command_line.run(lambda package=package: missing(package), PROGRAMS[program])
        named = capsys.readouterr().err.rpartition("[")[2].partition("]")[0].split(",")
        brought = {normal(line) for extra in named for line in closure(extra, extras["optional-dependencies"])}
        assert normal(package) in brought, f"{program} imports {package}, which {named} do not bring"


def missing(package: str) -> None:
    raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def imported_by(program: str) -> set[str]:
    """Packages that are neither Python's nor Binwatch's own."""
    files = [file for folder in ("binwatch", program) for file in (ROOT / folder).rglob("*.py")]
    if program == "trainer":  # it serves nothing
        files = [file for file in files if not file.is_relative_to(ROOT / "binwatch" / "web")]
    found: set[str] = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"binwatch", "demo", "monitor", "trainer", "worker", "__future__"}


def normal(requirement: str) -> str:
    name = re.split(r"[\[<>=;! ]", requirement)[0]
    return NAMES.get(name, name).lower().replace("_", "-")


def closure(extra: str, extras: dict[str, list[str]]) -> list[str]:
    own = extras[extra]
    inner = [name for line in own if (found := re.match(r"binwatch\[(.*)\]", line)) for name in found[1].split(",")]
    return own + [line for name in inner for line in closure(name, extras)]


def test_who_reads_no_further_is_no_error() -> None:
    """As `binwatch monitor list failed | head -1` does."""
    script = "from binwatch import command_line\ncommand_line.run(lambda: print('a' * 100), 'monitor')"
    command = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout
    assert command.stderr
    command.stdout.close()
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait(60) == 0


def test_an_error_is_told_though_nobody_reads_on() -> None:
    script = (
        "from binwatch import command_line\nfrom binwatch.errors import OutageError\n"
        "def app():\n print('a line')\n raise OutageError('the database is gone')\n"
        "command_line.run(app, 'monitor', status_by_error=True)"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered
    )
    assert command.stdout
    assert command.stderr
    command.stdout.close()
    found = command.stderr.read()
    command.stderr.close()
    assert (command.wait(60), found) == (3, b"error: the database is gone\n")


def test_a_closed_standard_output_is_no_error() -> None:
    script = "from binwatch import command_line; command_line.run(lambda: None, 'monitor')"
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" >&-', sys.executable, script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
