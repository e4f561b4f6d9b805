"""The configuration: TOML files, assignments on the command line, and error messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import parse_assignment, read_config
from trainer.errors import ConfigError

DATA = {"data.photos": "photos", "data.index": "index.csv"}


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[data]\nphotos = "a"\nindex = "b.csv"\n[train]\nepochs = 5\nseed = 7\n', encoding="utf-8")
    result = read_config(file, {"train.epochs": 3, "model.freeze": "layer3"})
    assert (result.train.epochs, result.train.seed, result.model.freeze) == (3, 7, "layer3")
    assert result.data.photos == Path("a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "data.photos: Field required"),
        ({**DATA, "train.epoch": 3}, r"train\.epoch is not an option \(did you mean train\.epochs\?\); see the table"),
        ({**DATA, "train.optimizer": "sgd"}, r"train\.optimizer is not .* mean train\.optimiser\?"),
        ({**DATA, "trian.epochs": 3}, r"trian is not an option \(did you mean train\?\)"),
        ({**DATA, "model.size": 96}, r"model\.size is not an option \(did you mean data\.size\?\)"),  # in another table
        ({**DATA, "train.xyz": 3}, r"train\.xyz is not an option; see the table of options in docs/training\.md"),
        ({**DATA, "train.epochs": 0}, "train.epochs: Input should be greater than or equal to 1"),
        ({**DATA, "train.device": "gpu"}, r"train.device: String should match pattern '\^\(auto\|cpu\|cuda"),
        ({**DATA, "data.class_shares": [1, 2, 3]}, "data.class_shares: Value error, expected 7 numbers above 0"),
        ({**DATA, "data.class_shares": [0, *range(6)]}, "data.class_shares: Value error, expected 7 numbers above 0"),
    ],
)
def test_error_names_the_wrong_option(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(None, changes)


def test_option_outside_a_table_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("epochs = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"epochs is not an option \(did you mean train\.epochs\?\)"):
        read_config(tmp_path / "run.toml", DATA)


def test_path_option_keeps_its_source_text() -> None:
    assert read_config(
        None, dict([parse_assignment("data.photos=1_0"), parse_assignment("data.index=007")])
    ).data.index == Path("007")


def test_missing_or_invalid_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml: cannot be read"):
        read_config(tmp_path / "run.toml", DATA)
    (tmp_path / "run.toml").write_text("epochs: 3", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.toml: is not TOML"):
        read_config(tmp_path / "run.toml", DATA)
    (tmp_path / "run.toml").write_text("train = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match="train: expected a table of options, found 3"):
        read_config(tmp_path / "run.toml", {"train.epochs": 3})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=3", ("train.epochs", 3)),
        ("augment.flip=false", ("augment.flip", False)),
        ("model.weights=none", ("model.weights", "none")),
        ("data.photos=/a b=c", ("data.photos", "/a b=c")),
    ],
)
def test_parse_assignment(text: str, expected: tuple[str, object]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["1.10", "1_0", "007", "2026-11-29", "1e3", "0x10", "'1.10'", '"1.10"'])
def test_string_option_keeps_its_source_text(text: str) -> None:
    result = read_config(
        None, DATA | dict([parse_assignment(f"data.split_column={text}"), parse_assignment("train.epochs=1_0")])
    )
    assert result.data.split_column == text.strip("'\"")
    assert result.train.epochs == 10  # as TOML parses it
    assert type(result.train.epochs) is int


@pytest.mark.parametrize("text", ["train.epochs", "epochs=3", ""])
def test_invalid_assignment_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected SECTION\.OPTION=VALUE"):
        parse_assignment(text)
