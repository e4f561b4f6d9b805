"""Comparison of two models on the same photos: which one is better, and is the difference significant?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from binwatch.bundle import Bundle, Estimate, Metrics, Precision
from binwatch.counts import column_names
from trainer.data.split import Split
from trainer.display import Display
from trainer.errors import ConfigError
from trainer.evaluation.evaluate import EvaluatedModel, open_bundle, open_model, read_sample
from trainer.evaluation.metrics import counts_of, measure, paired_difference

VARIANT_PREFERENCE = (Precision.INT8, Precision.FP32, Precision.FP16)
"""Order of preference of a bundle's variants for the comparison, the same as that of workers on a CPU."""


@dataclass(frozen=True)
class ModelComparison:
    """Metrics of two models on the same photos."""

    candidate: str
    current: str
    metrics: dict[str, Metrics]
    """Model's name → its metrics."""
    difference: dict[str, Estimate]
    """Metric's name → the candidate's value minus the current model's."""
    untested: tuple[int, ...] = ()
    """Classes that only the current model can predict and that no photo shows, so errors on them are not measured."""
    photos: str = "test photos"
    identical: bool = False
    """Whether both models give every photo the same probabilities."""

    @property
    def better(self) -> bool:
        """Whether the candidate's accuracy is significantly higher, and its RMSE is not significantly larger.

        A model that is exact a little more often but has larger errors is no progress. If the candidate cannot predict
        classes that the current model can, the photos must show these classes: without them, its task is easier, and
        its errors on such photos are not measured.
        """
        return self.difference["accuracy"].low > 0 and self.difference["rmse"].low <= 0 and not self.untested

    def verdict(self) -> str:
        """Describe the result in one or two sentences."""
        if self.identical:
            return (
                f"{self.candidate} and {self.current} are the same model: each of"
                f" {self.metrics[self.candidate].photos:,} {self.photos} gets the same probabilities from both"
            )
        gain, error = self.difference["accuracy"], self.difference["rmse"]
        lost = (
            f"; it cannot predict {column_names(self.untested)}, which {self.current} can, and no {self.photos[:-1]}"
            " shows that: compare on photos of every quantity (--photos, --index)"
        )
        return (
            f"{self.candidate} is {'better' if self.better else 'not found to be better'} than {self.current} on"
            f" {self.metrics[self.candidate].photos:,} {self.photos}: exact counts {100 * gain.value:+.1f} points"
            f" ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), RMSE {error.value:+.2f}"
            f" ({error.low:+.2f} to {error.high:+.2f}){lost if self.untested else ''}"
        )


def compare(
    candidate: EvaluatedModel, current: EvaluatedModel, display: Display, split: Split | None = Split.TEST
) -> ModelComparison:
    """Compare models on a split of the candidate's data set, or on all photos of its index if `split` is None.

    Both use the candidate's count rule, so that the networks are compared and not the rules.
    """
    sample = read_sample(candidate.data(), split, display)
    photos = sample.photos
    distributions = [model.predict(photos) for model in (candidate, current)]
    new, old = (counts_of(distribution, photos.labels, photos.groups, candidate.rule) for distribution in distributions)
    metrics = {
        model.name: measure(counts, sample.majority.overall) for model, counts in ((candidate, new), (current, old))
    }
    untested = set(current.classes) - set(candidate.classes) - set(photos.labels.tolist())
    photo_set = f"{split} photos" if split else "photos"
    return ModelComparison(
        candidate.name, current.name, metrics, paired_difference(new, old), tuple(sorted(untested)), photo_set,
        identical=np.array_equal(distributions[0], distributions[1]),
    )  # fmt: skip


def compare_files(
    candidate: Path, current: Path, changes: dict[str, Any], display: Display, split: Split | None = Split.TEST
) -> ModelComparison:
    """Compare two bundles or checkpoints. Their paths are their names, because all runs use the same checkpoint names.

    `changes` replace options of the candidate's data set ("photos", …).
    """
    if candidate.resolve() == current.resolve():
        raise ConfigError(f"{candidate}: is compared with itself; name two models")

    def opened(path: Path) -> EvaluatedModel:
        model = open_model(path, changes, display, VARIANT_PREFERENCE)
        display.say(f"{path}: {model.name}")
        return replace(model, name=str(path))

    return compare(opened(candidate), opened(current), display, split)


def open_current(bundle: Bundle, changes: dict[str, Any], display: Display) -> EvaluatedModel:
    """Open the variant of a bundle that workers on a CPU use, and name it by the bundle's version."""
    return replace(open_bundle(bundle, VARIANT_PREFERENCE, changes, display), name=bundle.card.version)
