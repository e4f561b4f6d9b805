"""Two models on the same photos: which counts better, and by more than chance?"""

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
from trainer.evaluation.evaluate import Judged, judged, judged_bundle, read_sample
from trainer.evaluation.metrics import counts_of, measure, paired

PREFERRED = (Precision.INT8, Precision.FP32, Precision.FP16)
"""Which variant is compared: the one that workers use on a CPU, which is what this command runs on."""


@dataclass(frozen=True)
class ModelComparison:
    """Two models on the same photos; `difference` is the candidate's figure less the current one's."""

    candidate: str
    current: str
    metrics: dict[str, Metrics]
    difference: dict[str, Estimate]
    untested: tuple[int, ...] = ()
    """Classes that only the current model can answer and that no photo shows: what the candidate would lose."""
    photos: str = "test photos"
    identical: bool = False
    """Both give every photo the same probabilities."""

    @property
    def better(self) -> bool:
        """More exact counts, and by more than chance; and errors that are not larger by more than chance.

        A model that is right a little more often and far off where it is wrong is no progress. One that cannot answer
        what the current one can must be measured on photos that show it: without them its answers are fewer, and so
        easier, and at work it would count each such photo wrong.
        """
        return self.difference["accuracy"].low > 0 and self.difference["rmse"].low <= 0 and not self.untested

    def verdict(self) -> str:
        """In one sentence, or two."""
        if self.identical:
            return (
                f"{self.candidate} and {self.current} are the same model: each of"
                f" {self.metrics[self.candidate].photos:,} {self.photos} gets the same probabilities from both"
            )
        gain, error = self.difference["accuracy"], self.difference["rmse"]
        lost = (
            f"; it never answers {names_of(self.untested)}, as {self.current} does, and no {self.photos[:-1]} shows"
            " that: compare on photos of every quantity (--photos, --index)"
        )
        return (
            f"{self.candidate} is {'better' if self.better else 'not found to be better'} than {self.current} on"
            f" {self.metrics[self.candidate].photos:,} {self.photos}: exact counts {100 * gain.value:+.1f} points"
            f" ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), RMSE {error.value:+.2f}"
            f" ({error.low:+.2f} to {error.high:+.2f}){lost if self.untested else ''}"
        )


def compare(candidate: Judged, current: Judged, display: Display, split: Split | None = Split.TEST) -> ModelComparison:
    """Both models on a split of the candidate's data set, or (None) on every photo of the index.

    Both are counted by the candidate's rule: the same network by another rule is no other network.
    """
    sample = read_sample(candidate.data(), split, display)
    photos = sample.photos
    answers = [each.answer(photos) for each in (candidate, current)]
    new, old = (counts_of(found, photos.labels, photos.groups, candidate.rule) for found in answers)
    figures = {each.name: measure(found, sample.majority.overall) for each, found in ((candidate, new), (current, old))}
    untested = set(current.classes) - set(candidate.classes) - set(photos.labels.tolist())
    what = f"{split} photos" if split else "photos"
    return ModelComparison(
        candidate.name, current.name, figures, paired(new, old), tuple(sorted(untested)), what,
        identical=np.array_equal(answers[0], answers[1]),
    )  # fmt: skip


def compare_files(
    candidate: Path, current: Path, changes: dict[str, Any], display: Display, split: Split | None = Split.TEST
) -> ModelComparison:
    """Two bundles or checkpoints, named by their paths: runs call their checkpoints alike.

    `changes` replace options of the candidate's data set ("photos", …).
    """
    if candidate.resolve() == current.resolve():
        raise ConfigError(f"{candidate}: is compared with itself; name two models")

    def opened(path: Path) -> Judged:
        found = judged(path, changes, display, PREFERRED)
        display.say(f"{path}: {found.name}")
        return replace(found, name=str(path))

    return compare(opened(candidate), opened(current), display, split)


def in_use(bundle: Bundle, changes: dict[str, Any], display: Display) -> Judged:
    """A bundle as workers on a CPU use it, named by its version."""
    return replace(judged_bundle(bundle, PREFERRED, changes, display), name=bundle.card.version)
