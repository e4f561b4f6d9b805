"""Tests that the README's commands run and print the output shown there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.demo.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def console_blocks() -> list[tuple[str, str]]:
    """(command, output) of each command in the README's console blocks."""
    commands = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            commands.append((command, output))
    return commands


COMMANDS = console_blocks()


def normalise(output: str) -> list[str]:
    """The lines without what differs between runs and terminals: numbers, times, padding and paths."""
    output = re.sub(r"(BINWATCH_\w+)=\S+", r"\1=…", output)
    lines = (re.sub(r"[\d.]+%?|[ ━╸╺─]+", " ", line).strip() for line in output.splitlines())
    return [line for line in lines if line]


def test_readme_shows_main_commands_first():
    shown = [command.split(" ")[:2] for command, _ in COMMANDS[:5]]
    assert shown == [
        ["pip", "install"],
        ["binwatch", "check"],
        ["binwatch", "check"],
        ["make", "demo"],
        ["make", "test"],
    ]


@pytest.mark.parametrize(("command", "output"), [pair for pair in COMMANDS if "samples/index.csv" in pair[0]])
def test_check_prints_what_readme_shows(command, output, tmp_path):
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    arguments = [sys.executable, "-m", *shlex.split(command)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert normalise(result.stdout) == normalise(output)
    assert (tmp_path / "wrong.xlsx").exists()


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS if command.startswith("make ")])
def test_each_make_target_exists(command):
    arguments = shlex.split(command)
    dry_run = subprocess.run([*arguments, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert dry_run.returncode == 0, dry_run.stderr


def test_make_demo_prints_what_readme_shows(run_demo):
    shown = dict(COMMANDS)["make demo"]
    result = run_demo()
    assert result.status == 0, result.output
    printed = normalise(result.output)
    missing = [line for line in normalise(shown) if line not in printed]
    assert missing == []


@pytest.mark.parametrize(
    ("command", "output"), [pair for pair in COMMANDS if pair[0].startswith("python -m")], ids=lambda text: text[:40]
)
def test_each_python_command_prints_what_readme_shows(command, output):
    result = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert normalise(result.stdout) == normalise(output)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_each_link_target_exists(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_test_files_named_in_docs_exist(page):
    named = re.findall(r"\btests/[\w/]+\.py\b", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
