"""A bundle is given a new reference, by the command, from the sample photos."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from binwatch.bundle import Bundle
from trainer.reference import app

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLES / "model", tmp_path / "model"))


def test_a_bundle_is_given_the_reference_of_photos(bundle: Path) -> None:
    before = Bundle(bundle).card
    photos = ["--photos", str(SAMPLES / "bin-images"), "--index", str(SAMPLES / "index.csv"), "--split", "test"]
    result = CliRunner().invoke(app, [str(bundle), *photos])
    assert result.exit_code == 0, result.output
    after = Bundle(bundle).card
    found = after.reference
    assert found is not None
    assert f"{found.photos} photos of {found.groups} bins" in result.stdout
    assert 0 < found.groups <= found.photos == sum(found.predicted) == sum(found.labels)
    assert found.embedding is not None
    assert len(found.embedding.mean) == after.embedding_size
    assert {"confidence", "brightness", "contrast"} <= found.quantiles.keys()
    for quantiles in found.quantiles.values():
        assert quantiles == sorted(quantiles)
    assert after.model_copy(update={"reference": before.reference}) == before, "the rest stays as it is"


def test_a_split_without_photos_is_named(bundle: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    index.write_text("key,label,bin_group\n00182,5,00182\n", encoding="utf-8")  # a validation photo
    photos = ["--photos", str(SAMPLES / "bin-images"), "--index", str(index), "--split", "test"]
    result = CliRunner().invoke(app, [str(bundle), *photos])
    assert result.exit_code == 1
    assert "no photo of the test split" in result.stderr
