"""Comparison of trained networks, alone and averaged, on validation photos, to choose models to export and teachers.

    python -m benchmarks.checkpoints samples/model runs/160 runs/224 --photos photos-224 --index index.csv

Each MODEL is a bundle, a run's folder (its best.pt), or a checkpoint. A checkpoint is calibrated on the same photos and
corrected to its data.class_shares, as by `export`. The last rows are the mean of the checkpoints' probabilities, and
the mean that also includes each photo's mirror image. Exact counts, RMSE and recall are those of the seven classes; the
MAE over all quantities is that of the median of the whole distribution. Differences are from the first row, with 95 %
intervals by bin group. The test photos are not used.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from binwatch.counts import class_probabilities
from trainer.data.dataset import PhotoSet, find_photos
from trainer.data.split import Split
from trainer.display import Display
from trainer.evaluation.evaluate import Probabilities, open_model
from trainer.evaluation.metrics import Counts, challenge_counts, counts_of, measure, paired_difference, quantity_errors
from trainer.evaluation.temperature import softmax
from trainer.export.bundle import fit_scaling
from trainer.train import checkpoint
from trainer.train.checkpoint import Checkpoint
from trainer.train.run_files import BEST_CHECKPOINT

BATCH = 32


def checkpoint_path(path: Path) -> Path:
    """The best checkpoint if `path` is a run's folder, otherwise `path` itself."""
    return path / BEST_CHECKPOINT if (path / BEST_CHECKPOINT).exists() else path


def predict_with_mirrored(saved: Checkpoint, photos: PhotoSet) -> tuple[Probabilities, Probabilities]:
    """Calibrated probabilities of photos, unchanged and mirrored, float64 (photos, quantities) each."""
    model = saved.model()
    logits: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    with torch.inference_mode():
        for start in range(0, len(photos), BATCH):
            pixels = torch.from_numpy(photos.pixels(range(start, min(start + BATCH, len(photos)))))
            for parts, batch in zip(logits, (pixels, pixels.flip(2)), strict=True):
                parts.append(model(batch)[0])
    plain, mirrored = (torch.cat(parts).numpy() for parts in logits)
    scale = fit_scaling(saved, plain, photos.labels)
    return softmax(plain, scale.temperature, scale.shift), softmax(mirrored, scale.temperature, scale.shift)


def predict_all(
    paths: list[Path], changes: dict[str, Any], display: Display
) -> tuple[PhotoSet, dict[str, Probabilities]]:
    """The validation photos, and their probabilities by each of `paths` and by the means."""
    data = open_model(checkpoint_path(paths[0]), changes, display).data()
    sample = find_photos(data)[0].filter(lambda row: row.split is Split.VALIDATION and row.has_known_class)
    display.say(f"{len(sample):,} validation photos")
    rows: dict[str, Probabilities] = {}
    pairs: list[tuple[Probabilities, Probabilities]] = []
    for path in paths:
        if checkpoint_path(path).is_dir():
            rows[str(path)] = open_model(path, changes, display).predict(sample)
            continue
        saved = checkpoint.load(checkpoint_path(path))
        config = saved.config.data
        resized = replace(sample, size=config.size, jpeg_quality=config.jpeg_quality or None)
        pairs.append(predict_with_mirrored(saved, resized))
        rows[str(path)] = pairs[-1][0]
        rows[f"{path}, mirrored too"] = np.mean(pairs[-1], axis=0)
    if len({plain.shape[1] for plain, _ in pairs}) > 1:
        pairs = [(class_probabilities(plain), class_probabilities(mirrored)) for plain, mirrored in pairs]
    if len(pairs) > 1:
        rows[f"mean of {len(pairs)}"] = np.mean([plain for plain, _ in pairs], axis=0)
        rows[f"mean of {len(pairs)}, mirrored too"] = np.mean(pairs, axis=(0, 1))
    return sample, rows


def table(rows: dict[str, Probabilities], photos: PhotoSet) -> Iterator[str]:
    """Lines of a Markdown table, which compares the rows with the first.

    Exact counts are of all photos, and also of 0–5 items by the challenge's protocol, as is the RMSE.
    """
    known = np.flatnonzero(photos.targets >= 0)
    labels, groups = photos.labels, photos.groups
    counts: dict[str, tuple[Counts, Counts]] = {
        name: (counts_of(each, labels, groups), challenge_counts(each, labels, groups)) for name, each in rows.items()
    }
    first = next(iter(counts.values()))
    yield (
        "| | exact, all | difference | exact, 0–5 | difference | RMSE, 0–5 | difference | of the mean | recall of 4 |"
        " of 5 | MAE, all quantities |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, (all_counts, small_counts) in counts.items():
        of_all, of_small = measure(all_counts, 0), measure(small_counts, 0)
        errors = quantity_errors(rows[name][known], photos.quantities[known], [groups[index] for index in known])
        all_difference = paired_difference(all_counts, first[0])
        small_difference = paired_difference(small_counts, first[1])
        cells = [
            f"{of_all.accuracy.value:.1%}",
            _points(all_difference["accuracy"]),
            f"{of_small.accuracy.value:.1%}",
            _points(small_difference["accuracy"]),
            f"{of_small.rmse.value:.2f}",
            "{0.value:+.2f} ({0.low:+.2f} to {0.high:+.2f})".format(small_difference["rmse"]),
            f"{of_small.rmse_of_mean.value:.2f}" if of_small.rmse_of_mean else "–",
            *(f"{of_small.per_class[label]['recall']:.0%}" for label in ("4", "5")),
            f"{errors.mae.value:.2f} ({errors.mae.low:.2f} to {errors.mae.high:.2f})",
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def _points(difference: Any) -> str:
    """A difference of shares with its interval, in percentage points."""
    return f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    changes = {"photos": options.photos, "index": options.index, "class_shares": ()}
    photos, rows = predict_all(options.models, changes, Display())
    print("\n".join(table(rows, photos)))


if __name__ == "__main__":
    main()
