"""Missing files and folders are reported before torch is imported, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.drawn import Data

WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
from trainer.__main__ import main
for arguments in json.load(sys.stdin):
    sys.argv = ["trainer", *arguments]
    try:
        main()
    except SystemExit as ended:
        print("exit", ended.code, file=sys.stderr)
"""
WRONG_PATHS = [
    ("fit --photos nowhere --index INDEX --out run", "nowhere: no such folder or tar of photos"),
    ("fit --photos PHOTOS --index none.csv --out run", "none.csv: cannot be read (No such file or directory)"),
    ("fit --photos PHOTOS --out run", "PHOTOS: there are no labels; give an index"),
    ("fit --photos PHOTOS --index INDEX --out run --set distil.teachers=['one.pt']", "one.pt: no such checkpoint"),
    ("fit --photos PHOTOS --index INDEX --out FITTED", "FITTED: has a run already"),
    ("fit --config none.toml --out run", "none.toml: cannot be read (No such file or directory)"),
    ("fit --from-study nowhere --out run", "nowhere: has no study; run: python -m trainer tune"),
    ("fit --out nowhere --resume", "nowhere/last.pt: no such checkpoint"),
    ("tune --photos nowhere --index INDEX --out study", "nowhere: no such folder or tar of photos"),
    ("profile --photos nowhere --index INDEX", "nowhere: no such folder or tar of photos"),
    ("profile --photos PHOTOS --index INDEX --prices none.csv", "none.csv: cannot be read"),
    ("evaluate none.pt", "none.pt: no such checkpoint"),
    ("evaluate FITTED", "FITTED: is the folder of a run; give its checkpoint, FITTED/best.pt"),
    ("evaluate PHOTOS", "PHOTOS/card.json: cannot be read (No such file or directory)"),
    ("evaluate FITTED/best.pt --photos nowhere", "nowhere: no such folder or tar of photos"),
    ("compare FITTED/best.pt none.pt", "none.pt: no such checkpoint"),
    ("compare FITTED/best.pt FITTED/last.pt --index none.csv", "none.csv: cannot be read"),
    ("export none.pt --out bundle", "none.pt: no such checkpoint"),
    ("calibrate nowhere --photos PHOTOS", "nowhere/card.json: cannot be read (No such file or directory)"),
    ("calibrate nowhere --photos PHOTOS --index none.csv", "none.csv: cannot be read (No such file or directory)"),
    ("self-check nowhere", "nowhere/card.json: cannot be read (No such file or directory)"),
    ("promote bundle --photos nowhere", "nowhere: no such folder or tar of photos"),
    ("pipeline --config none.toml --work work", "none.toml: cannot be read (No such file or directory)"),
]
"""Commands and the beginning of their error message."""


@pytest.fixture(scope="module")
def paths(data: Data, fitted: Path) -> dict[str, str]:
    return {"PHOTOS": str(data.photos), "INDEX": str(data.index), "FITTED": str(fitted)}


def fill_paths(text: str, paths: dict[str, str]) -> str:
    for name, path in paths.items():
        text = text.replace(name, path)
    return text


@pytest.fixture(scope="module")
def error_lines(paths: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run all commands in one process without torch; return error messages and exit codes, line by line."""
    folder = tmp_path_factory.mktemp("wrong")
    commands = json.dumps([fill_paths(command, paths).split() for command, _ in WRONG_PATHS])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input=commands, cwd=folder, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    assert done.stdout == ""
    assert list(folder.iterdir()) == []
    return done.stderr.splitlines()


@pytest.mark.parametrize("number", range(len(WRONG_PATHS)), ids=[command for command, _ in WRONG_PATHS])
def test_wrong_path_is_reported_without_importing_torch(
    number: int, error_lines: list[str], paths: dict[str, str]
) -> None:
    assert len(error_lines) == 2 * len(WRONG_PATHS)
    assert error_lines[2 * number].startswith(f"error: {fill_paths(WRONG_PATHS[number][1], paths)}")
    assert error_lines[2 * number + 1] == "exit 1"
