"""What `pip install` brings, alone in an environment and outside of the repository: commands, migrations, the model."""

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
    """The folder with the commands of an environment that has Binwatch with the extras check and cpu, and no other."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        if os.environ.get("CI"):
            pytest.fail("no uv in the environment: make .venv/uv.installed")
        pytest.skip("no uv in the environment: make .venv/uv.installed")
    folder = tmp_path_factory.mktemp("wheel")
    for command in (
        # From an archive of the sources, which shows that it is complete, too.
        ["build", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, ROOT],
        ["venv", "--python", sys.executable, folder / "venv"],
    ):
        subprocess.run([uv, "--quiet", *command], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    wanted = [f"{wheel}[check,cpu]", "-c", ROOT / "requirements.lock"]
    subprocess.run([uv, "--quiet", "pip", "install", "--python", python, *wanted], check=True, cwd=folder)
    return python.parent


def test_a_photo_is_counted_and_checked(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy2(ROOT / "samples" / "bin-images" / "00184.jpg", tmp_path / "photos")
    (tmp_path / "stock.csv").write_text("bin;qty\n184;5\n", encoding="utf-8")

    def run(*arguments: str) -> str:
        done = subprocess.run([installed / "binwatch", *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version").startswith("binwatch ")
    assert "00184.jpg" in run("worker", "count", "photos")
    assert "1 photo compared" in run("check", "photos", "--expected", "stock.csv")
    assert (tmp_path / "wrong.xlsx").exists()


def test_only_these_names_are_taken(installed: Path) -> None:
    """Of names that others may use, too: docs/architecture.md has the reason."""
    (packages,) = (installed.parent / "lib").glob("python*/site-packages")
    (taken,) = packages.glob("binwatch-*.dist-info/top_level.txt")
    assert taken.read_text().split() == ["binwatch", "monitor", "trainer", "worker"]
    (record,) = packages.glob("binwatch-*.dist-info/RECORD")
    tops = {line.split(",")[0].split("/")[0] for line in record.read_text().splitlines()}
    assert {top for top in tops if top != ".." and not top.endswith(".dist-info")} == {*taken.read_text().split()}


def test_what_another_extra_brings_is_named(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run([installed / "binwatch", "monitor", "serve"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "error: fastapi is not installed; in Binwatch's repository: pip install -c requirements.lock '.[monitor]'\n"
    )


def test_the_model_is_the_repository_s(installed: Path) -> None:
    shipped = installed.parent / "share" / "binwatch" / "model"
    model = ROOT / "samples" / "model"
    assert {file.name: file.stat().st_size for file in shipped.iterdir()} == {
        file.name: file.stat().st_size for file in model.iterdir()
    }


def test_images_are_built_before_there_is_anything_but_the_names_of_packages(installed: Path, tmp_path: Path) -> None:
    """As deploy/compose/install-packages has it: pyproject.toml alone, beside an empty README."""
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "README.md").touch()
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "--quiet", "build", "--wheel", "--no-build-isolation", "--python", sys.executable, tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "dist").glob("binwatch-*.whl"))) == 1
