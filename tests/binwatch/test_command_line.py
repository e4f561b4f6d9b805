"""Exit codes and error messages of commands."""

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


def test_a_binwatch_error_is_printed_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def app() -> None:
        raise BinwatchError("the disk is full; make room")

    with pytest.raises(SystemExit) as ended:
        command_line.run(app, "demo")
    assert (ended.value.code, capsys.readouterr().err) == (1, "error: the disk is full; make room\n")


def test_error_messages_are_escaped_and_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    def app() -> None:
        raise BinwatchError(f"index.csv, line 2: label '{'x' * 300_000}\x1b[2J' is not a number; correct it")

    with pytest.raises(SystemExit):
        command_line.run(app, "demo")
    message = capsys.readouterr().err
    assert message.startswith("error: index.csv, line 2: label 'xxx")
    assert message.endswith("is not a number; correct it\n")
    assert "characters left out" in message
    assert (len(message.splitlines()), "\x1b" in message) == (1, False)
    assert len(message) < 2_100


def test_a_missing_package_is_named_with_its_extra(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda: importlib.import_module("not_installed.at_all"), "worker,cpu")
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: not_installed is not installed; in Binwatch's repository:"
        " pip install -c requirements.lock '.[worker,cpu]'\n"
    )


def test_a_missing_binwatch_module_is_not_handled() -> None:
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
"""Packages that provide a module with a different name."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_named_extra_contains_every_imported_package(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Check this for every package that the program or the `binwatch` package imports anywhere."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert PROGRAMS[program] in (ROOT / program / "__main__.py").read_text(), (
        "the extras in the program's error message"
    )
    everywhere = set(map(normalised_name, extras["dependencies"]))
    for package in sorted(name for name in imported_by(program) if normalised_name(name) not in everywhere):
        with pytest.raises(SystemExit):
            command_line.run(lambda package=package: raise_missing(package), PROGRAMS[program])
        named = capsys.readouterr().err.rpartition("[")[2].partition("]")[0].split(",")
        brought = {normalised_name(line) for extra in named for line in closure(extra, extras["optional-dependencies"])}
        assert normalised_name(package) in brought, (
            f"{program} imports {package}, which the extras {named} do not contain"
        )


def raise_missing(package: str) -> None:
    raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def imported_by(program: str) -> set[str]:
    """Return the imported top-level packages outside of the standard library and Binwatch."""
    files = [file for folder in ("binwatch", program) for file in (ROOT / folder).rglob("*.py")]
    if program == "trainer":  # it has no web server
        files = [file for file in files if not file.is_relative_to(ROOT / "binwatch" / "web")]
    packages: set[str] = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            packages.add(str(node.module).partition(".")[0])
    return packages - set(sys.stdlib_module_names) - {"binwatch", "demo", "monitor", "trainer", "worker", "__future__"}


def normalised_name(requirement: str) -> str:
    name = re.split(r"[\[<>=;! ]", requirement)[0]
    return NAMES.get(name, name).lower().replace("_", "-")


def closure(extra: str, extras: dict[str, list[str]]) -> list[str]:
    own = extras[extra]
    inner = [name for line in own if (match := re.match(r"binwatch\[(.*)\]", line)) for name in match[1].split(",")]
    return own + [line for name in inner for line in closure(name, extras)]


def test_a_closed_pipe_is_not_an_error() -> None:
    """For example, `binwatch monitor list failed | head -1` closes the pipe."""
    script = "from binwatch import command_line\ncommand_line.run(lambda: print('a' * 100), 'monitor')"
    command = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout
    assert command.stderr
    command.stdout.close()
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait(60) == 0


def test_errors_are_printed_even_if_the_pipe_is_closed() -> None:
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
    result = command.stderr.read()
    command.stderr.close()
    assert (command.wait(60), result) == (3, b"error: the database is gone\n")


def test_a_closed_standard_output_is_not_an_error() -> None:
    script = "from binwatch import command_line; command_line.run(lambda: None, 'monitor')"
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" >&-', sys.executable, script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
