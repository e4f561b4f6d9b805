"""Tests of the installed wheel outside of the repository: commands, migrations and the model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment in which Binwatch is installed with the extras check and cpu only."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        if os.environ.get("CI"):
            pytest.fail("no uv in the environment: make .venv/uv.installed")
        pytest.skip("no uv in the environment: make .venv/uv.installed")
    folder = tmp_path_factory.mktemp("wheel")
    for command in (
        # Builds the wheel from the source archive, which shows that the archive is complete.
        ["build", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, ROOT],
        ["venv", "--python", sys.executable, folder / "venv"],
    ):
        subprocess.run([uv, "--quiet", *command], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    requirements = [f"{wheel}[check,cpu]", "-c", ROOT / "requirements.lock"]
    subprocess.run([uv, "--quiet", "pip", "install", "--python", python, *requirements], check=True, cwd=folder)
    return python.parent


def test_count_and_check(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy2(ROOT / "samples" / "bin-images" / "00184.jpg", tmp_path / "photos")
    (tmp_path / "stock.csv").write_text("bin;qty\n184;5\n", encoding="utf-8")

    def run(*arguments: str) -> str:
        result = subprocess.run([installed / "binwatch", *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert run("--version").startswith("binwatch ")
    assert "00184.jpg" in run("worker", "count", "photos")
    assert "1 photo compared" in run("check", "photos", "--expected", "stock.csv")
    assert (tmp_path / "wrong.xlsx").exists()


def test_installed_package_names(installed: Path) -> None:
    """Only these top-level names are installed; docs/architecture.md has the reason."""
    (packages,) = (installed.parent / "lib").glob("python*/site-packages")
    (top_level,) = packages.glob("binwatch-*.dist-info/top_level.txt")
    assert top_level.read_text().split() == ["binwatch", "monitor", "trainer", "worker"]
    (record,) = packages.glob("binwatch-*.dist-info/RECORD")
    tops = {line.split(",")[0].split("/")[0] for line in record.read_text().splitlines()}
    assert {top for top in tops if top != ".." and not top.endswith(".dist-info")} == {*top_level.read_text().split()}


def test_missing_extra_is_named(installed: Path, tmp_path: Path) -> None:
    result = subprocess.run([installed / "binwatch", "monitor", "serve"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == (
        "error: fastapi is not installed; in Binwatch's repository: pip install -c requirements.lock '.[monitor]'\n"
    )


def test_installed_model_equals_repository_model(installed: Path) -> None:
    installed_model = installed.parent / "share" / "binwatch" / "model"
    repository_model = ROOT / "samples" / "model"
    assert {file.name: file.stat().st_size for file in installed_model.iterdir()} == {
        file.name: file.stat().st_size for file in repository_model.iterdir()
    }


def test_wheel_can_be_built_from_pyproject_alone(installed: Path, tmp_path: Path) -> None:
    """deploy/compose/install-packages does so, with an empty README."""
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "README.md").touch()
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "--quiet", "build", "--wheel", "--no-build-isolation", "--python", sys.executable, tmp_path]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "dist").glob("binwatch-*.whl"))) == 1
