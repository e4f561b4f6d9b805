"""Files of `prepare` are escaped for spreadsheets and read back unchanged."""

from __future__ import annotations

import csv
from pathlib import Path

from trainer.config import DataConfig
from trainer.data.index import read_index
from trainer.data.split import Split
from trainer.prepare.fetch import SkippedBin
from trainer.prepare.outputs import Entry, Report, read_manifest, write

KEYS = ["=1+1", "+1", "-1", "@a", "'=1", "'quoted", "00001"]


def test_keys_that_look_like_formulas_are_escaped(tmp_path: Path) -> None:
    entries = [Entry(key, 3, "metadata", f"-{key}", Split.TRAIN, "0" * 64) for key in KEYS]
    write(tmp_path, Report("s3://bins/", 0, entries, [SkippedBin("=2+2", "-no photo")], {}))
    for file in tmp_path.glob("*.csv"):
        with file.open(encoding="utf-8", newline="") as opened:
            cells = [cell for row in csv.reader(opened) for cell in row]
        assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
    assert read_manifest(tmp_path) == entries
    rows = read_index(DataConfig(photos=tmp_path, index=tmp_path / "manifest.csv"))
    assert {(row.key, row.group) for row in rows} == {(key, f"-{key}") for key in KEYS}
