"""Calibration of p-values, also by the command `calibrate` from the sample photos."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from binwatch.bundle import Bundle, Calibration
from binwatch.errors import BundleError
from tests.calibrations import category
from tests.trainer.drawn import run_cli
from trainer.data.dataset import PhotoSet
from trainer.data.index import Row
from trainer.data.split import Split
from trainer.errors import DataError
from trainer.export import conformal
from trainer.export.model_outputs import ModelOutputs

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLES / "model", tmp_path / "model"))


def test_calibrate_writes_the_calibration_of_photos(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Bundle(bundle).card
    photos = ["--photos", str(SAMPLES / "bin-images"), "--index", str(SAMPLES / "index.csv"), "--split", "validation"]
    run_cli("calibrate", bundle, *photos, "--only", "calibration")
    printed = capsys.readouterr().out
    after = Bundle(bundle).card
    result = after.calibration
    assert result is not None
    assert f"calibrated with {result.photos} photos (0, 1, 2, 3, 4, 5, more than 5: {result.photos})" in printed
    assert result.split == "validation"
    assert sorted(index for part in result.categories for index in part.classes) == list(range(7))
    for scores in (scores for part in result.categories for scores in (part.either, part.missing, part.surplus)):
        assert list(scores) == sorted(scores)
        assert all(0 <= score <= 1 for score in scores)
    assert after.model_copy(update={"calibration": before.calibration}) == before, "the rest of the card is unchanged"


def test_calibration_without_directions_is_ignored(bundle: Path) -> None:
    """Earlier releases wrote such calibrations. The rest of the bundle remains valid."""
    card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    old = {"photos": 3, "split": "test", "categories": [{"classes": list(range(7)), "scores": [0.1, 0.5, 0.9]}]}
    (bundle / "card.json").write_text(json.dumps(card | {"calibration": old}), encoding="utf-8")
    assert Bundle(bundle).card.calibration is None
    odd = {"photos": 3, "split": "test", "categories": [{"classes": [0]}]}
    (bundle / "card.json").write_text(json.dumps(card | {"calibration": odd}), encoding="utf-8")
    with pytest.raises(BundleError, match="calibration"):
        Bundle(bundle)


@pytest.mark.parametrize(("classes", "is_used"), [((*range(7),), False), ((*range(22),), True)])
def test_calibration_must_match_the_columns_of_the_distribution(
    bundle: Path, classes: tuple[int, ...], is_used: bool
) -> None:
    """Earlier releases wrote calibrations of the seven classes for wider models; they are ignored."""
    card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    pooled = category((0.1, 0.9), classes=classes)
    calibration = Calibration(photos=2, split="test", categories=(pooled,))
    wide = card | {"highest": 20, "calibration": calibration.model_dump(mode="json")}
    (bundle / "card.json").write_text(json.dumps(wide), encoding="utf-8")
    assert (Bundle(bundle).card.calibration is not None) == is_used
    (bundle / "card.json").write_text(json.dumps(wide | {"highest": 19 if is_used else 5}), encoding="utf-8")
    if is_used:
        with pytest.raises(BundleError, match="categories of the columns 0 to 20, found 21"):
            Bundle(bundle)
    else:
        assert Bundle(bundle).card.calibration is not None


def test_describe_names_the_categories() -> None:
    of_classes, of_more = category((0.1,), classes=(4, 5, 6)), category((0.1, 0.2), classes=(19, 20, 21))
    calibration = Calibration(photos=3, split="test", categories=(of_classes, of_more))
    assert conformal.describe(calibration, 20) == "4, 5, 6: 1; 19, 20, more than 20: 2"


@pytest.mark.parametrize(("name", "columns"), [("model", 7), ("model-lite", 22)])
def test_sample_models_are_calibrated(name: str, columns: int) -> None:
    """They use held-out photos, with enough photos in each category of one or several neighbouring quantities."""
    calibration = Bundle(SAMPLES / name).card.calibration
    assert calibration is not None
    assert calibration.split == "test"
    assert [index for part in calibration.categories for index in part.classes] == list(range(columns))
    assert all(len(part.either) >= 100 for part in calibration.categories)


def test_more_than_five_needs_photos_with_an_exact_number() -> None:
    """Neither photos of 5 items nor labels of "6 or more" can calibrate 40 for a model that distinguishes it."""
    rows = tuple(
        Row(f"{number:05}", 6 if number % 7 == 6 else number % 7, str(number), Split.TEST, number % 7 == 6)
        for number in range(700)
    )
    distribution = np.full((700, 22), 1 / 22)
    photos = PhotoSet(rows=rows, source=None)  # type: ignore[arg-type]  # nothing is decoded
    result = conformal.calibration_of(ModelOutputs(photos, "test", distribution, np.zeros((700, 1))))
    assert sorted(index for part in result.categories for index in part.classes) == [0, 1, 2, 3, 4, 5]
    only = replace(photos, rows=tuple(row for row in rows if row.at_least))
    with pytest.raises(DataError, match="is labelled with a number that the model can predict"):
        conformal.calibration_of(ModelOutputs(only, "test", distribution[: len(only)], np.zeros((len(only), 1))))
