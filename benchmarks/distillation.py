"""Whether several models say more than one, and whether a student learns it from them.

    python -m benchmarks.distillation --photos photos-224.tar --index index.csv --out runs/distillation \\
      --weights resnet50v2-imagenet-layers1-3.npz --train 3000 --epochs 4 --threads 2

Trains the starter model's network (docs/training.md) on a part of the training photos: once with each seed, then with
the first seed again, taught by all of them. Every model is the averaged weights of its last epoch, measured on the
validation photos; the test photos are not looked at. Prints a table. Runs that are there already are not repeated: the
same command continues.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.held_out import held_out
from trainer import checkpoint, features
from trainer.calibrate import softmax
from trainer.config import Config, read
from trainer.data.dataset import PhotoSet
from trainer.data.split import Split, split_of
from trainer.display import Display
from trainer.evaluate import Probabilities
from trainer.fit import fit, read_data, saved_run
from trainer.loop import LAST
from trainer.metrics import counts_of, measure, paired
from trainer.predict import logits_of

STARTER = {"model.architecture": "resnet50v2", "model.freeze": "layer3.2", "train.ema": 0.997}
QUALITY = 82
"""At which the photos of `photos-224.tar` were stored."""


def write_subset(index: Path, out: Path, train: int) -> None:
    """An index with `train` training photos, of groups from all over the set, and all others."""
    with index.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if split_of(row["bin_group"]) is Split.TRAIN]
    groups = list(dict.fromkeys(row["bin_group"] for row in rows))
    place = {groups[old]: new for new, old in enumerate(np.random.default_rng(0).permutation(len(groups)))}
    chosen = sorted(rows, key=lambda row: place[row["bin_group"]])[:train]
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "label", "bin_group"])
        writer.writerows([row["key"], row["label"], row["bin_group"]] for row in [*chosen, *held_out(index)])


def plans(out: Path, seeds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of each run, and what it changes."""
    names = [f"seed {seed}" for seed in range(seeds)]
    teachers = [str(out / name / LAST) for name in names]
    yield from ((name, {"train.seed": seed}) for seed, name in enumerate(names))
    yield "taught", {"distil.teachers": teachers}
    yield "taught, T 2, share 0.9", {"distil.teachers": teachers, "distil.temperature": 2, "distil.share": 0.9}


def trained(config: Config, folder: Path, cache: Path, display: Display) -> Path:
    """The last checkpoint of a run, which is begun, continued or found there."""
    saved = saved_run(folder) if (folder / LAST).exists() else None
    if saved is None or saved.epoch < config.train.epochs:
        fit(saved.config if saved else config, folder, display, saved=saved, cache=cache)
    return folder / LAST


def answers(file: Path, photos: PhotoSet, cache: Path) -> Probabilities:
    """Probabilities of photos, float (photos, classes), by the features that the run was scored on."""
    saved = checkpoint.load(file)
    model, train = saved.model(), saved.config.train
    views = features.compute(model, photos, saved.config, 1, cache, lambda batches, *_: batches)
    batches = features.FeatureBatches(views, photos, 64, seed=0, flip=False, shuffle=False, threads=train.readers)
    return softmax(logits_of(model, batches, train))


def table(found: dict[str, Probabilities], photos: PhotoSet) -> Iterator[str]:
    """Figures of each, and how they differ from the first one's, with 95 % intervals by bin group."""
    labels = photos.labels
    counts = {name: counts_of(each, labels, photos.groups) for name, each in found.items()}
    first = next(iter(counts.values()))
    yield "| | exact | against the first | RMSE | against the first | log loss |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, own in counts.items():
        figures, less = measure(own, 0), paired(own, first)
        log_loss = -np.log(found[name][np.arange(len(labels)), labels]).mean()
        gain, error = less["accuracy"], less["rmse"]
        yield (
            f"| {name} | {figures.accuracy.value:.1%}"
            f" | {100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
            f" | {figures.rmse.value:.2f} | {error.value:+.2f} ({error.low:+.2f} to {error.high:+.2f})"
            f" | {log_loss:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--photos", "--index", "--out", "--weights"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--train", type=int, default=3000, help="training photos")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3, help="models trained with labels alone: the teachers")
    parser.add_argument("--runs", type=int, default=99, help="only so many of the runs, the seeds first")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "index.csv").exists():
        write_subset(options.index, out / "index.csv", options.train)
    fixed = STARTER | {"data.photos": options.photos, "data.index": out / "index.csv", "data.jpeg_quality": QUALITY}
    fixed |= {"model.weights": str(options.weights), "augment.views": options.views, "train.precision": "bf16"}
    fixed |= {"train.epochs": options.epochs, "train.threads": options.threads, "train.readers": options.threads}

    display, cache = Display(), out / "features"
    files = {}
    for name, changes in list(plans(out, options.seeds))[: options.runs]:
        display.say(f"\n{name}")
        files[name] = trained(read(None, fixed | changes), out / name, cache, display)
    photos = read_data(read(None, fixed).data, display)[Split.VALIDATION]
    found = {name: answers(file, photos, cache) for name, file in files.items()}
    alone = list(found.values())[: options.seeds]
    found |= {f"mean of {many} seeds": np.mean(alone[:many], axis=0) for many in range(2, len(alone) + 1)}
    print("\n".join(table(found, photos)))


if __name__ == "__main__":
    main()
