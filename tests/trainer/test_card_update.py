"""The commands `calibrate` and `self-check`: the photos they use and their output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from binwatch.bundle import Bundle, Precision
from tests.trainer.drawn import Data, run_cli
from tests.trainer.grey import write_grey_bundle
from trainer.data.split import Split, split_of


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Write a model that was trained with another split than the default."""
    folder = write_grey_bundle(tmp_path, "v1")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card["training"] = {"config": {"data": {"photos": "photos", "index": "index.csv", "split_seed": 9}}}
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def in_split(split: Split, seed: int) -> int:
    return sum(split_of(f"g{number}", seed) is split for number in range(140))


def test_default_splits_were_not_used_for_training(bundle: Path, grey: Data) -> None:
    """Splits follow the model's own training; otherwise most photos would be training photos."""
    run_cli("calibrate", bundle, *grey.flags)
    card = Bundle(bundle).card
    assert card.calibration is not None
    assert card.calibration.split == "test"
    assert card.calibration.photos == in_split(Split.TEST, 9) != in_split(Split.TEST, 0)
    assert card.reference is not None
    assert card.reference.photos == in_split(Split.VALIDATION, 9) != in_split(Split.VALIDATION, 0)


def test_all_photos_of_other_bins_are_used_with_every(bundle: Path, grey: Data) -> None:
    """For example audited photos, whose index has no split column."""
    card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    card["training"]["config"]["data"]["split_column"] = "challenge_split"
    (bundle / "card.json").write_text(json.dumps(card), encoding="utf-8")
    run_cli("calibrate", bundle, *grey.flags, "--every")
    result = Bundle(bundle).card
    assert result.calibration is not None
    assert (result.calibration.photos, result.calibration.split) == (140, "all")
    assert result.reference is not None
    assert result.reference.photos == 140


def test_self_check_changes_nothing_else_in_the_card(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Bundle(bundle).card
    assert before.variants[Precision.INT8].self_check is None
    run_cli("self-check", bundle)
    after = Bundle(bundle).card
    variant = after.variants[Precision.INT8]
    assert variant.self_check is not None
    assert len(variant.self_check.probabilities) == len(variant.self_check.embeddings) == 4
    unchecked = variant.model_copy(update={"self_check": None})
    assert after.model_copy(update={"variants": {Precision.INT8: unchecked}}) == before
    assert capsys.readouterr().out.strip() == f"{bundle}: self-check of int8"


def test_only_one_part_is_replaced(bundle: Path, grey: Data) -> None:
    before = Bundle(bundle).card
    run_cli("calibrate", bundle, *grey.flags, "--only", "reference", "--split", "test")
    after = Bundle(bundle).card
    assert after.reference is not None
    assert after.reference.photos == in_split(Split.TEST, 9)
    assert after.model_copy(update={"reference": before.reference}) == before


@pytest.mark.parametrize(("only", "split"), [("calibration", "test"), ("reference", "validation")])
def test_empty_split_is_an_error(
    only: str, split: str, bundle: Path, grey: Data, tmp_path: Path, cli_error: Callable[..., str]
) -> None:
    before = Bundle(bundle).card
    index = tmp_path / "index.csv"
    index.write_text(f"key,label,bin_group\n00001,1,{group_in_split(Split.TRAIN)}\n", encoding="utf-8")
    message = f"error: {index}: no photo of the {split} split; name another with --split, or take all with --every"
    assert cli_error("calibrate", bundle, "--photos", grey.photos, "--index", index, "--only", only) == message
    assert Bundle(bundle).card == before


def group_in_split(split: Split) -> str:
    return next(f"g{number}" for number in range(140) if split_of(f"g{number}", 9) is split)
