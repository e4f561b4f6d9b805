"""The drift reference that `calibrate` computes from the sample photos."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from binwatch.bundle import Bundle
from tests.trainer.drawn import run_cli

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLES / "model", tmp_path / "model"))


def test_calibrate_writes_the_reference_of_photos(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Bundle(bundle).card
    photos = ["--photos", str(SAMPLES / "bin-images"), "--index", str(SAMPLES / "index.csv"), "--split", "test"]
    run_cli("calibrate", bundle, *photos, "--only", "reference")
    printed = capsys.readouterr().out
    after = Bundle(bundle).card
    result = after.reference
    assert result is not None
    assert f"{result.photos} photos of {result.groups} bins. The drift reference is of {result.groups} bins" in printed
    assert 0 < result.groups <= result.photos == sum(result.predicted) == sum(result.labels)
    assert result.embedding is not None
    assert len(result.embedding.mean) == after.embedding_size
    assert {"confidence", "brightness", "contrast"} <= result.quantiles.keys()
    for quantiles in result.quantiles.values():
        assert quantiles == sorted(quantiles)
    assert after.model_copy(update={"reference": before.reference}) == before, "the rest of the card is unchanged"
