"""Stores a model's outputs for photos that it was not trained on, unchanged and disturbed.

    python -m benchmarks.held_out FOLDER OUT.npz [--model samples/model] [--strengths medium strong]

FOLDER holds photos-224.tar with KEY.jpg, and index.csv with the columns key, label and bin_group. The validation and
the test split (a tenth of the bin groups each, as the trainer splits them) are used; only test photos are disturbed.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tarfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.disturbances import DISTURBANCES, STRENGTHS, Pixels
from binwatch.bundle import Bundle, Card
from binwatch.counts import class_of
from binwatch.photo_stats import photo_stats
from trainer.data.split import Split, split_of
from worker.engine import Engine

BATCH = 16


def held_out_rows(index: Path) -> list[dict[str, str]]:
    """Rows of the validation and the test split, each with its split."""
    with index.open(encoding="utf-8", newline="") as file:
        rows = [row | {"split": split_of(row["bin_group"]).value} for row in csv.DictReader(file)]
    return [row for row in rows if row["split"] != Split.TRAIN]


def pixels_of(tar: Path, rows: list[dict[str, str]], card: Card) -> list[Pixels]:
    """Photos with the preprocessing of `card`, uint8 (size, size, 3), in the order of the rows."""
    names = {f"{row['key']}.jpg" for row in rows}
    with tarfile.open(tar) as archive:
        data = {
            Path(member.name).name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
            if Path(member.name).name in names
        }
    return [card.load_photo(data[f"{row['key']}.jpg"]).pixels for row in rows]


def outputs(engine: Engine, photos: list[Pixels]) -> dict[str, np.ndarray]:
    """Probabilities, embeddings, and brightness, contrast and sharpness of photos."""
    batches = (np.stack(photos[start : start + BATCH]) for start in range(0, len(photos), BATCH))
    inferred = [engine.infer(batch) for batch in batches]
    stats = [photo_stats(photo) for photo in photos]
    return {
        "probabilities": np.concatenate([batch.probabilities for batch in inferred]),
        "embeddings": np.concatenate([batch.embeddings for batch in inferred]),
        "stats": np.array([(each.brightness, each.contrast, each.sharpness) for each in stats]),
    }


def disturbed_photos(photos: list[Pixels], strengths: Collection[str]) -> Iterator[tuple[str, list[Pixels]]]:
    """(name of the disturbance and strength, disturbed photos) for all disturbances at these strengths."""
    with ThreadPoolExecutor(2) as pool:
        for name, (disturb, values) in DISTURBANCES.items():
            for strength, value in zip(STRENGTHS, values, strict=True):
                if strength not in strengths:
                    continue
                yield (
                    f"{name} {strength}",
                    list(pool.map(lambda photo, disturb=disturb, value=value: disturb(photo, value), photos)),
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=Path("samples/model"))
    parser.add_argument(
        "--strengths", nargs="*", choices=STRENGTHS, default=STRENGTHS, help="strengths of disturbances; empty: none"
    )
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    engine = Engine(Bundle(options.model), threads=options.threads)
    rows = held_out_rows(options.folder / "index.csv")
    photos = pixels_of(options.folder / "photos-224.tar", rows, engine.card)
    splits = np.array([row["split"] for row in rows])
    groups = np.unique([row["bin_group"] for row in rows], return_inverse=True)[1]
    arrays = {
        "version": np.array(engine.card.version),
        "splits": splits,
        "groups": groups,
        "labels": np.array([class_of(int(row["label"])) for row in rows]),
        "shape": np.array([float(row["width"]) / float(row["height"]) for row in rows]),
    }
    arrays |= {f"none/{name}": values for name, values in outputs(engine, photos).items()}
    test = [photo for photo, split in zip(photos, splits, strict=True) if split == Split.TEST]
    for name, disturbed in disturbed_photos(test, options.strengths):
        arrays |= {f"{name}/{part}": values for part, values in outputs(engine, disturbed).items()}
        print(name, file=sys.stderr, flush=True)
    np.savez(options.out, **arrays)


if __name__ == "__main__":
    main()
