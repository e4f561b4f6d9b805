"""The table that compares trained networks, for known predictions and for a real model."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.checkpoints import main, table
from tests.conftest import ROOT
from trainer.config import DataConfig
from trainer.data.dataset import PhotoSet
from trainer.data.index import read_index
from trainer.data.source import open_source

SAMPLES = ROOT / "samples"


def test_the_table_compares_with_the_first_checkpoint() -> None:
    rows = read_index(DataConfig(photos=SAMPLES, index=SAMPLES / "index.csv"))
    photos = PhotoSet(open_source(SAMPLES / "bin-images"), tuple(rows))
    labels = photos.labels
    right = np.full((len(labels), 7), 0.05)
    right[np.arange(len(labels)), labels] = 0.7
    probabilities = {"wrong": np.roll(right, 1, axis=1), "right": right}
    lines = list(table(probabilities, photos))
    up_to_five = labels[labels <= 5]
    rmse = np.sqrt(
        np.where(up_to_five == 5, 25, 1).mean()
    )  # without "more than 5" the wrong row of a 5 is uniform, so 0 is chosen
    unchanged, better = "+0.0 (+0.0 to +0.0)", "+100.0 (+100.0 to +100.0)"
    assert lines[2].startswith(
        f"| wrong | 0.0% | {unchanged} | 0.0% | {unchanged} | {rmse:.2f} | +0.00 (+0.00 to +0.00) |"
    )
    mae = "3.60 (2.60 to 4.69)"  # all quantities as they are; of 0, the median is 6
    assert lines[2].endswith(f"| 0% | 0% | {mae} |")
    assert lines[3].startswith(f"| right | 100.0% | {better} | 100.0% | {better} | 0.00 | -{rmse:.2f} (")
    assert "| 100% | 100% | " in lines[3]


def test_a_bundle_is_measured_on_validation_photos(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, index = SAMPLES / "bin-images", SAMPLES / "index.csv"
    monkeypatch.setattr(
        "sys.argv", ["checkpoints", str(SAMPLES / "model"), "--photos", str(photos), "--index", str(index)]
    )
    main()
    printed = capsys.readouterr()
    assert "58 validation photos" in printed.err
    (row,) = [line for line in printed.out.splitlines() if line.startswith(f"| {SAMPLES / 'model'} |")]
    assert "| +0.0 (+0.0 to +0.0) |" in row
