"""Fixtures of the trainer's tests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.drawn import PHOTOS, QUICK, Data, draw, run_cli, write_index
from tests.trainer.grey import write_grey_data
from trainer import __main__ as cli


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Write 160 photos of 0 to 7 items in 80 groups of two."""
    data_set = Data(tmp_path_factory.mktemp("data"))
    data_set.photos.mkdir()
    random = np.random.default_rng(0)
    rows: list[tuple[str, object, str]] = []
    for number in range(PHOTOS):
        key = f"{number:05}"
        draw(number % 8, random).save(data_set.photos / f"{key}.jpg")
        rows.append((key, number % 8, f"g{number // 2}"))
    write_index(data_set.index, rows)
    return data_set


@pytest.fixture(scope="session")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Write photos for the models of `write_grey_bundle`."""
    return write_grey_data(tmp_path_factory.mktemp("grey"))


@pytest.fixture
def cli_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that runs a failing command, checks exit code 1 and returns the last line of its errors."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["trainer", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    return run


@pytest.fixture(scope="session")
def fitted(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fit two epochs with frozen lower layers and return the folder of the run."""
    folder = tmp_path_factory.mktemp("run")
    run_cli("fit", *data.flags, "--out", folder, *QUICK, "--freeze", "layer2", "--epochs", 2)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 240 kB: 60 blocks; each small file takes one block."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=240k", "binwatch", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
