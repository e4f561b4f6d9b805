"""Accuracy of a bundle on full-size photos, with and without the JPEG step of its card.

A model trained on photos stored as JPEGs of input size has learned their artefacts. The card's `jpeg_quality` makes
workers compress photos in the same way before counting. This measures the effect.

    python benchmarks/full_size_photos.py PHOTOS INDEX.csv [--model samples/model] [--split test]

INDEX has the columns key, label and, for --split, split.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from binwatch.bundle import Bundle
from binwatch.counts import class_of
from binwatch.image import load_photo
from binwatch.settings import DEFAULT_MODEL
from worker.engine import Engine

BATCH = 32


def predict(engine: Engine, photos: list[bytes], jpeg_quality: int | None) -> np.ndarray:
    """Predicted classes, int64 (photos,)."""
    pixels = np.stack(
        [load_photo(photo, size=engine.card.input_size, jpeg_quality=jpeg_quality).pixels for photo in photos]
    )
    parts = [engine.infer(pixels[start : start + BATCH]).counts for start in range(0, len(pixels), BATCH)]
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--split")
    options = parser.parse_args()
    with options.index.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if options.split in (None, row.get("split"))]
    rows = [row for row in rows if (options.photos / f"{row['key']}.jpg").exists()]
    labels = np.array([class_of(int(row["label"])) for row in rows])
    photos = [(options.photos / f"{row['key']}.jpg").read_bytes() for row in rows]
    engine = Engine(Bundle(options.model))
    print(f"{len(rows)} photos, {engine.card.version}, {engine.precision}")
    for name, quality in (("no JPEG step", None), (f"JPEG {engine.card.jpeg_quality}", engine.card.jpeg_quality)):
        error = predict(engine, photos, quality) - labels
        rmse = np.sqrt(np.mean(error**2))
        print(
            f"{name:<14} exact {np.mean(error == 0):.1%}  within one {np.mean(np.abs(error) <= 1):.1%}  RMSE {rmse:.2f}"
            f"  mean error {np.mean(error):+.2f} items"
        )


if __name__ == "__main__":
    main()
