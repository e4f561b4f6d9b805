"""Comparison of two models on the same photos: which counts better, and is the difference more than chance?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from binwatch.bundle import Bundle, Estimate, Metrics, Precision
from binwatch.counts import names_of
from trainer.data.split import Split
from trainer.display import Display
from trainer.errors import ConfigError
from trainer.evaluation.evaluate import EvaluatedModel, open_bundle, open_model, read_sample
from trainer.evaluation.metrics import counts_of, measure, paired_difference

VARIANT_PREFERENCE = (Precision.INT8, Precision.FP32, Precision.FP16)
"""Order in which a variant is chosen for the comparison: as by workers on a CPU."""


@dataclass(frozen=True)
class ModelComparison:
    """Two models on the same photos; `difference` is the candidate's figure minus the current one's."""

    candidate: str
    current: str
    metrics: dict[str, Metrics]
    difference: dict[str, Estimate]
    untested: tuple[int, ...] = ()
    """Classes that only the current model can predict and that no photo shows: the candidate would lose them."""
    photos: str = "test photos"
    identical: bool = False
    """Whether both models give every photo the same probabilities."""

    @property
    def better(self) -> bool:
        """Whether there are more exact counts, by more than chance, and the RMSE is not larger by more than chance.

        A model that is exact a little more often but has larger errors is no progress. If it cannot predict classes
        that the current model can, photos that show them must be among those compared: without them its task is easier,
        and its errors on such photos are not measured.
        """
        return self.difference["accuracy"].low > 0 and self.difference["rmse"].low <= 0 and not self.untested

    def verdict(self) -> str:
        """The result as one sentence, or two."""
        if self.identical:
            return (
                f"{self.candidate} and {self.current} are the same model: each of"
                f" {self.metrics[self.candidate].photos:,} {self.photos} gets the same probabilities from both"
            )
        gain, error = self.difference["accuracy"], self.difference["rmse"]
        lost = (
            f"; it cannot predict {names_of(self.untested)}, which {self.current} can, and no {self.photos[:-1]} shows"
            " that: compare on photos of every quantity (--photos, --index)"
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
    """Both models on a split of the candidate's data set, or (None) on every photo of the index.

    The candidate's count rule is used for both, so that networks are compared and not rules.
    """
    sample = read_sample(candidate.data(), split, display)
    photos = sample.photos
    predicted = [each.predict(photos) for each in (candidate, current)]
    new, old = (counts_of(found, photos.labels, photos.groups, candidate.rule) for found in predicted)
    figures = {each.name: measure(found, sample.majority.overall) for each, found in ((candidate, new), (current, old))}
    untested = set(current.classes) - set(candidate.classes) - set(photos.labels.tolist())
    what = f"{split} photos" if split else "photos"
    return ModelComparison(
        candidate.name, current.name, figures, paired_difference(new, old), tuple(sorted(untested)), what,
        identical=np.array_equal(predicted[0], predicted[1]),
    )  # fmt: skip


def compare_files(
    candidate: Path, current: Path, changes: dict[str, Any], display: Display, split: Split | None = Split.TEST
) -> ModelComparison:
    """Two bundles or checkpoints, named by their paths, because all runs give their checkpoints the same names.

    `changes` replace options of the candidate's data set ("photos", …).
    """
    if candidate.resolve() == current.resolve():
        raise ConfigError(f"{candidate}: is compared with itself; name two models")

    def opened(path: Path) -> EvaluatedModel:
        found = open_model(path, changes, display, VARIANT_PREFERENCE)
        display.say(f"{path}: {found.name}")
        return replace(found, name=str(path))

    return compare(opened(candidate), opened(current), display, split)


def open_current(bundle: Bundle, changes: dict[str, Any], display: Display) -> EvaluatedModel:
    """A bundle in the variant that workers on a CPU use, named by its version."""
    return replace(open_bundle(bundle, VARIANT_PREFERENCE, changes, display), name=bundle.card.version)
