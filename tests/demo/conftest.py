"""Fixture that runs the demo as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "samples"


@dataclass(frozen=True)
class DemoResult:
    status: int
    output: str
    report: dict[str, Any] | None


@pytest.fixture
def run_demo(tmp_path: Path) -> Callable[..., DemoResult]:
    """A function that runs `python -m demo` to its end."""

    def run(*arguments: str, cwd: Path = ROOT, **environment: str) -> DemoResult:
        report = tmp_path / "report.json"
        result = subprocess.run(
            [sys.executable, "-m", "demo", "--report", str(report), *arguments],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        parsed = json.loads(report.read_text(encoding="utf-8")) if report.exists() else None
        return DemoResult(result.returncode, result.stdout, parsed)

    return run
