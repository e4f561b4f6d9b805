"""What the benchmark of teachers prints, of answers that are known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from benchmarks.distillation import table, write_subset
from tests.conftest import ROOT
from trainer.config import DataConfig
from trainer.data.dataset import PhotoSet
from trainer.data.index import read_index
from trainer.data.source import open_source
from trainer.data.split import Split, split_of

SAMPLES = ROOT / "samples"


def test_a_subset_keeps_all_that_is_held_out(tmp_path: Path) -> None:
    index, out = tmp_path / "index.csv", tmp_path / "subset.csv"
    groups = [f"g{number // 2}" for number in range(200)]
    index.write_text("key,label,bin_group,more\n" + "".join(f"k{n},{n % 8},{g},x\n" for n, g in enumerate(groups)))
    write_subset(index, out, 20)
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    splits = [split_of(row["bin_group"]) for row in rows]
    assert splits.count(Split.TRAIN) == 20
    held_out = [group for group in groups if split_of(group) is not Split.TRAIN]
    assert [row["bin_group"] for row in rows[20:]] == held_out
    assert len({row["bin_group"] for row in rows[:20]}) == 10  # whole groups


def test_the_table_compares_with_the_first() -> None:
    rows = read_index(DataConfig(photos=SAMPLES, index=SAMPLES / "index.csv"))
    photos = PhotoSet(open_source(SAMPLES / "bin-images"), tuple(rows))
    labels = photos.labels
    right = np.full((len(labels), 7), 0.05)
    right[np.arange(len(labels)), labels] = 0.7
    found = {"wrong": np.roll(right, 1, axis=1), "right": right}
    lines = list(table(found, photos))
    assert lines[2].startswith("| wrong | 0.0% | +0.0 points (+0.0 to +0.0) |")
    assert lines[2].endswith("| +0.00 (+0.00 to +0.00) | 2.996 |")
    assert lines[3].startswith("| right | 100.0% | +100.0 points (+100.0 to +100.0) | 0.00 | -")
    assert lines[3].endswith("| 0.357 |")
