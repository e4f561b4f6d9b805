"""Class lists such as the Udacity capstone's file_list.json, in place of an index."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.drawn import QUICK, Data, run_cli
from trainer.config import DataConfig
from trainer.data.index import Row, has_groups, read_index, split_rule
from trainer.data.split import split_of
from trainer.errors import DataError
from trainer.train import checkpoint
from trainer.train.run_files import BEST_CHECKPOINT


def write_list(file: Path, data: Data) -> dict[str, list[str]]:
    """Write a class list of all drawn photos by the paths of their metadata files, as in the capstone."""
    result: dict[str, list[str]] = {}
    for row in read_index(DataConfig(photos=data.photos, index=data.index)):
        result.setdefault(str(row.quantity), []).append(f"data/metadata/{row.key}.json")
    file.write_text(json.dumps(result), encoding="utf-8")
    return result


def test_a_class_list_replaces_an_index(data: Data, tmp_path: Path) -> None:
    file = tmp_path / "file_list.json"
    write_list(file, data)
    config = DataConfig(photos=data.photos, index=file, split_seed=3)
    indexed = read_index(DataConfig(photos=data.photos, index=data.index))
    assert read_index(config) == [Row(row.key, row.quantity, row.key, split_of(row.key, 3)) for row in indexed]
    assert not has_groups(config)
    assert split_rule(config) == "80/10/10 by a hash of the photo's key, seed 3"


def test_a_model_is_trained_from_a_class_list(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file_list.json"
    write_list(file, data)
    run_cli(
        "fit", "--photos", data.photos, "--index", file, "--out", tmp_path / "run", *QUICK, "--freeze", "layer3",
        "--set", "augment.views=1", "--epochs", 1,
    )  # fmt: skip
    assert "the list does not say which photos show the same bin, so each" in " ".join(capsys.readouterr().err.split())
    assert checkpoint.load(tmp_path / "run" / BEST_CHECKPOINT).epoch == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", 'is not a list like {"1": ["data/metadata/100313.json"'),
        ('{"1": ["a.json"', "is not a list like"),
        ('{"one": ["a.json"]}', "'one' is not a number of items"),
        ('{"-1": ["a.json"]}', "'-1' is not a number of items"),
        ('{"1": ["a.json"], "2": ["b/a.jpg"]}', "a is listed with 1 and with 2 items; keep one"),
        ("{}", "lists no photos"),
    ],
)
def test_invalid_class_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "list.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        read_index(DataConfig(photos=tmp_path, index=file))
    assert message in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_split_column_needs_a_csv(data: Data, tmp_path: Path, cli_error: Callable[..., str]) -> None:
    file = tmp_path / "file_list.json"
    write_list(file, data)
    message = cli_error(
        "fit",
        "--photos",
        data.photos,
        "--index",
        file,
        "--out",
        tmp_path / "run",
        *QUICK,
        "--set",
        "data.split_column=part",
    )
    assert f"data.split_column=part: {file} has no columns" in message
