"""Labels from folder names, in place of an index."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.drawn import QUICK, Data, run_cli
from trainer.config import DataConfig
from trainer.data.index import Row, check_exists, digest, read_index, split_rule
from trainer.data.split import Split, split_of
from trainer.errors import DataError
from trainer.train import checkpoint

ONE_EPOCH = [*QUICK, "--freeze", "layer3", "--set", "augment.views=1", "--epochs", "1"]
SPLIT_FOLDERS = {Split.TRAIN: "train", Split.VALIDATION: "valid", Split.TEST: "Test"}


@pytest.fixture
def indexed(data: Data) -> list[Row]:
    return read_index(DataConfig(photos=data.photos, index=data.index))


@pytest.fixture
def split_folders(data: Data, indexed: list[Row], tmp_path: Path) -> Path:
    """Copy the drawn photos into folders by split and quantity."""
    return _copy(data, tmp_path / "parted", {row.key: f"{SPLIT_FOLDERS[row.split]}/{row.quantity}" for row in indexed})


@pytest.fixture
def quantity_folders(data: Data, indexed: list[Row], tmp_path: Path) -> Path:
    """Copy the drawn photos into folders by quantity; photos of 7 are in the folder 12."""
    where = {row.key: str(12 if row.quantity == 7 else row.quantity) for row in indexed}
    return _copy(data, tmp_path / "plain", where)


def _copy(data: Data, folder: Path, where: dict[str, str]) -> Path:
    for key, below in where.items():
        (folder / below).mkdir(parents=True, exist_ok=True)
        shutil.copy(data.photos / f"{key}.jpg", folder / below)
    return folder


def test_folders_give_quantity_and_split(split_folders: Path, indexed: list[Row]) -> None:
    config = DataConfig(photos=split_folders)
    check_exists(config)
    assert read_index(config) == [Row(row.key, row.quantity, row.key, row.split) for row in indexed]
    assert split_rule(config) == "by the folders"


def test_without_split_folders_the_key_gives_the_split(
    quantity_folders: Path, indexed: list[Row], tmp_path: Path
) -> None:
    config = DataConfig(photos=quantity_folders, split_seed=3)
    result = read_index(config)
    assert [row.split for row in result] == [split_of(row.key, 3) for row in indexed]
    assert {row.quantity for row in result} == {0, 1, 2, 3, 4, 5, 6, 12}
    assert split_rule(config) == "80/10/10 by a hash of the photo's key, seed 3"
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(quantity_folders, arcname=".")
    packed = config.model_copy(update={"photos": tmp_path / "photos.tar"})
    check_exists(packed)
    assert read_index(packed) == result
    assert digest(packed) == digest(config)
    (quantity_folders / "3" / "00003.jpg").rename(quantity_folders / "4" / "00003.jpg")
    assert digest(packed) != digest(config)


def test_a_key_in_two_folders_is_an_error_that_names_both(split_folders: Path) -> None:
    shutil.copy(
        split_folders / "train" / "0" / "00000.jpg", split_folders / "valid" / "3" / "00000 .png"
    )  # workers treat them as one bin
    with pytest.raises(DataError, match=r"train/0/00000\.jpg and .*valid/3/00000 \.png are both photo 00000; keep one"):
        read_index(DataConfig(photos=split_folders))


def test_photos_outside_quantity_folders_are_an_error(split_folders: Path, quantity_folders: Path) -> None:
    (split_folders / "test").mkdir(exist_ok=True)
    shutil.copy(split_folders / "train" / "0" / "00000.jpg", split_folders / "test" / "x.jpg")
    with pytest.raises(
        DataError, match=r"test/x\.jpg is not in a folder named after a quantity \(such photos: 1\); move"
    ):
        read_index(DataConfig(photos=split_folders))
    (split_folders / "test" / "x.jpg").unlink()
    (split_folders / "2").mkdir()
    shutil.copy(split_folders / "train" / "0" / "00000.jpg", split_folders / "2" / "x.jpg")
    with pytest.raises(DataError, match=r"2/x\.jpg is in none of the folders train, valid, val, validation, test, but"):
        read_index(DataConfig(photos=split_folders))
    with pytest.raises(DataError, match=r"data\.split_column=own: there is no index that could have this column"):
        read_index(DataConfig(photos=quantity_folders, split_column="own"))


def test_the_error_without_labels_names_index_and_folders(
    data: Data, tmp_path: Path, cli_error: Callable[..., str]
) -> None:
    message = cli_error("fit", "--photos", data.photos, "--out", tmp_path / "run", *ONE_EPOCH)
    assert "there are no labels; give an index, a CSV with a row per photo (--index, data.index), or" in message
    assert "folders named after their quantities (0/, 1/, …; also in train/, valid/ and test/)" in message
    with pytest.raises(DataError, match="there are no labels"):
        read_index(DataConfig(photos=data.photos))


def test_from_folders_to_a_bundle_and_its_metrics(
    split_folders: Path,
    quantity_folders: Path,
    indexed: list[Row],
    data: Data,
    tmp_path: Path,
    cli_error: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    run_cli("fit", "--photos", split_folders, "--out", run, *ONE_EPOCH)
    output = " ".join(capsys.readouterr().err.split())
    counts = ", ".join(f"{sum(row.split is split for row in indexed)} {split}" for split in Split)
    assert f"{counts} photos" in output
    assert (
        f"warning: {split_folders}: folders do not say which photos show the same bin, so each photo is treated as a"
        in output
    )
    assert checkpoint.load(run / "best.pt").config.data.index is None
    run_cli("export", run / "best.pt", "--out", bundle, "--variants", "fp32", "--max-loss", "1")
    training = json.loads((bundle / "card.json").read_text(encoding="utf-8"))["training"]
    assert training["split"] == "by the folders"
    assert (training["config"]["data"]["photos"], training["config"]["data"]["index"]) == ("parted", None)

    run_cli("evaluate", bundle, "--photos", quantity_folders, "--every", "--out", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert figures["metrics"]["all"]["photos"] == 160
    assert "give --photos" in cli_error("evaluate", bundle)

    # Its test photos differ from those of an index with bin groups.
    teachers = ["--set", f"distil.teachers=['{run}']"]
    message = cli_error("fit", *data.flags, "--out", tmp_path / "student", *ONE_EPOCH, *teachers)
    assert "was trained with other labels than" in message


def test_a_model_trained_with_an_index_is_evaluated_on_folders(
    fitted: Path, quantity_folders: Path, tmp_path: Path
) -> None:
    """The index of the training is missing on the evaluating machine."""
    saved = checkpoint.load(fitted / "best.pt")
    moved_config = saved.config.data.model_copy(update={"index": tmp_path / "gone.csv", "photos": tmp_path / "gone"})
    saved.config = saved.config.model_copy(update={"data": moved_config})
    checkpoint.save(tmp_path / "best.pt", saved)
    run_cli("evaluate", tmp_path / "best.pt", "--photos", quantity_folders, "--every")
    figures = json.loads((tmp_path / "evaluation" / "all.json").read_text(encoding="utf-8"))
    assert figures["metrics"]["all"]["photos"] == 160
