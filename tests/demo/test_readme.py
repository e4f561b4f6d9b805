"""The README's commands run, and print what it says that they print."""

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
    """Each command of the README's console blocks, with the output that follows it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


COMMANDS = console_blocks()


def shape(output: str) -> list[str]:
    """The lines without what differs from run to run and terminal to terminal: numbers, times, padding and paths."""
    output = re.sub(r"(BINWATCH_\w+)=\S+", r"\1=…", output)
    lines = (re.sub(r"[\d.]+%?|[ ━╸╺─]+", " ", line).strip() for line in output.splitlines())
    return [line for line in lines if line]


def test_the_readme_shows_what_people_come_for_first():
    shown = [command.split(" ")[:2] for command, _ in COMMANDS[:5]]
    assert shown == [
        ["pip", "install"],
        ["binwatch", "check"],
        ["binwatch", "check"],
        ["make", "demo"],
        ["make", "test"],
    ]


@pytest.mark.parametrize(("command", "output"), [pair for pair in COMMANDS if "samples/index.csv" in pair[0]])
def test_what_check_prints_is_what_the_readme_shows(command, output, tmp_path):
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    arguments = [sys.executable, "-m", *shlex.split(command)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert shape(done.stdout) == shape(output)
    assert (tmp_path / "wrong.xlsx").exists()


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS if command.startswith("make ")])
def test_each_make_target_is_there_and_expands(command):
    arguments = shlex.split(command)
    dry = subprocess.run([*arguments, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr


def test_what_make_demo_prints_is_what_the_readme_shows(run_demo):
    shown = dict(COMMANDS)["make demo"]
    done = run_demo()
    assert done.status == 0, done.output
    printed = shape(done.output)
    missing = [line for line in shape(shown) if line not in printed]
    assert missing == []


@pytest.mark.parametrize(
    ("command", "output"), [pair for pair in COMMANDS if pair[0].startswith("python -m")], ids=lambda text: text[:40]
)
def test_each_python_command_prints_what_the_readme_shows(command, output):
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert shape(done.stdout) == shape(output)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_each_link_leads_somewhere(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_each_test_file_that_a_page_names_is_there(page):
    named = re.findall(r"\btests/[\w/]+\.py\b", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
