"""The drift reference that the command `calibrate` makes of the sample photos."""

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
    found = after.reference
    assert found is not None
    assert f"{found.photos} photos of {found.groups} bins. The drift reference is of {found.groups} bins" in printed
    assert 0 < found.groups <= found.photos == sum(found.predicted) == sum(found.labels)
    assert found.embedding is not None
    assert len(found.embedding.mean) == after.embedding_size
    assert {"confidence", "brightness", "contrast"} <= found.quantiles.keys()
    for quantiles in found.quantiles.values():
        assert quantiles == sorted(quantiles)
    assert after.model_copy(update={"reference": before.reference}) == before, "the rest stays as it is"
