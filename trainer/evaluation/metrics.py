"""Metrics of counts against labels, in plain NumPy, so that they are the same for torch and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from binwatch.bundle import Estimate, Metrics, QuantityErrors
from binwatch.counts import CLASSES, CountRule, class_probabilities, median_counts, predict_counts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ECE_BINS = 15
"""Number of equally wide confidence bins. The calibration error is the mean, weighted by photos, of the distance
between a bin's mean confidence and its accuracy."""
RESAMPLES = 2000
"""Number of bootstrap resamples. The ends of a 95 % interval then differ by less than 0.1 points between seeds."""
RESAMPLES_PER_CHUNK = 50
"""Resamples in memory at a time. All of them would take 8 GB for the half million photos of the whole data set."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of labelled photos.

    `predicted` and `labels` are classes, int64 (photos,): `predicted` is the photo's count by a rule, and `confidence`,
    float64 (photos,), its probability. `mean`, float64 (photos,), and `median`, int64 (photos,), are those of the same
    distribution, in items. `groups` are the photos' bin groups.
    """

    predicted: Ints
    confidence: Floats
    mean: Floats
    median: Ints
    labels: Ints
    groups: list[str]

    def select(self, mask: npt.NDArray[np.bool_]) -> Counts:
        """Return the counts of the photos in `mask`, bool (photos,)."""
        groups = [group for group, selected in zip(self.groups, mask.tolist(), strict=True) if selected]
        return Counts(
            self.predicted[mask],
            self.confidence[mask],
            self.mean[mask],
            self.median[mask],
            self.labels[mask],
            groups,
        )


def counts_of(
    probabilities: npt.NDArray[np.floating], labels: Ints, groups: list[str], rule: CountRule = CountRule.MODE
) -> Counts:
    """Return count, mean and median of each row of `probabilities` (photos, quantities), reduced to the classes.

    "More than 5" counts as 6.
    """
    by_class: Floats = class_probabilities(probabilities).astype(np.float64)
    predicted = predict_counts(rule, by_class)
    return Counts(
        predicted=predicted,
        confidence=by_class[np.arange(len(predicted)), predicted],
        mean=by_class @ np.arange(by_class.shape[1]),
        median=median_counts(by_class),
        labels=labels,
        groups=groups,
    )


def challenge_counts(probabilities: npt.NDArray[np.floating], labels: Ints, groups: list[str], low: int = 0) -> Counts:
    """Count by the ABID challenge's protocol: only photos labelled `low` to 5, as the most probable of these classes.

    If a model gives all probability to "more than 5", the count is 5.
    """
    high = len(CLASSES) - 1
    mask = (labels >= low) & (labels < high)
    allowed = probabilities[mask, low:high].astype(np.float64)
    allowed[allowed.sum(axis=1) == 0, -1] = 1
    allowed = allowed / allowed.sum(axis=1, keepdims=True)
    selected_groups = [group for group, selected in zip(groups, mask.tolist(), strict=True) if selected]
    counts = counts_of(allowed, labels[mask], selected_groups)
    return replace(counts, predicted=counts.predicted + low, mean=counts.mean + low, median=counts.median + low)


def confusion(counts: Counts) -> Ints:
    """Count photos by label (row) and predicted class (column), int64 (classes, classes)."""
    size = len(CLASSES)
    return np.bincount(counts.labels * size + counts.predicted, minlength=size * size).reshape(size, size)


def measure(counts: Counts, majority: int) -> Metrics:
    """Compute all metrics, with 95 % intervals. `majority` is the most common training label, as a baseline."""
    table = confusion(counts)
    names, group_index = np.unique(counts.groups, return_inverse=True)
    values = _with_intervals(_group_sums(counts, group_index, len(names)), _metrics_of_sums)
    return Metrics(
        photos=len(counts.labels),
        majority_accuracy=float((counts.labels == majority).mean()),
        per_class=_per_class(table),
        confusion=table.tolist(),
        **values,
    )


def quantity_errors(distribution: npt.NDArray[np.floating], quantities: Ints, groups: list[str]) -> QuantityErrors:
    """Measure the errors of the medians of `distribution` (photos, quantities), with 95 % intervals."""
    error = (median_counts(distribution) - quantities).astype(np.float64)
    names, group_index = np.unique(groups, return_inverse=True)
    columns = (np.ones_like(error), np.abs(error), error**2)
    sums: Floats = np.stack([np.bincount(group_index, column, len(names)) for column in columns], axis=1).astype(
        np.float64
    )
    return QuantityErrors(photos=len(error), **_with_intervals(sums, _quantity_metrics_of_sums))


def _quantity_metrics_of_sums(sums: Floats) -> dict[str, Floats]:
    return {"mae": sums[:, 1] / sums[:, 0], "rmse": np.sqrt(sums[:, 2] / sums[:, 0])}


def paired_difference(candidate: Counts, current: Counts) -> dict[str, Estimate]:
    """Return each metric of `candidate` minus that of `current` on the same photos, with 95 % intervals.

    Both are resampled together, so photos that are hard for both do not widen the intervals.
    """
    assert candidate.groups == current.groups
    names, group_index = np.unique(candidate.groups, return_inverse=True)
    sums = np.concatenate([_group_sums(counts, group_index, len(names)) for counts in (candidate, current)], axis=1)
    return _with_intervals(sums, _difference_of_sums)


def _difference_of_sums(sums: Floats) -> dict[str, Floats]:
    """Return the metrics of the left half of the columns minus those of the right half."""
    new, old = (_metrics_of_sums(half) for half in np.split(sums, 2, axis=1))
    return {name: new[name] - old[name] for name in new}


def _with_intervals(sums: Floats, metrics: Callable[[Floats], dict[str, Floats]]) -> dict[str, Estimate]:
    """Estimate the metrics that `metrics` computes from rows of sums. `sums` has one row per group.

    Intervals come from bootstrap resamples of whole groups, because photos of one bin are not independent.
    """
    random = np.random.default_rng(0)
    groups = len(sums)
    weights = np.full(groups, 1 / groups)
    resamples = [
        random.multinomial(groups, weights, RESAMPLES_PER_CHUNK) @ sums for _ in range(RESAMPLES // RESAMPLES_PER_CHUNK)
    ]
    resampled = metrics(np.concatenate(resamples))
    return {
        name: Estimate(value=float(value[0]), low=float(low), high=float(high))
        for name, value in metrics(sums.sum(axis=0, keepdims=True)).items()
        for low, high in [np.quantile(resampled[name], [0.025, 0.975])]
    }


_SUM_COLUMNS = 7
"""Number of columns of a group's sums before those of the calibration bins: photos, exact, within one, |error|, error²,
|error of the median|, error of the mean²."""


def _group_sums(counts: Counts, group_index: npt.NDArray[np.intp], groups: int) -> Floats:
    error = (counts.predicted - counts.labels).astype(np.float64)
    exact = error == 0
    columns = [np.ones_like(error), exact, np.abs(error) <= 1, np.abs(error), error**2]
    columns += [np.abs(counts.median - counts.labels), (counts.mean - counts.labels) ** 2]
    sums = np.stack([np.bincount(group_index, weights=column, minlength=groups) for column in columns], axis=1)
    bins = np.minimum((counts.confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.zeros((groups, ECE_BINS))
    np.add.at(gaps, (group_index, bins), counts.confidence - exact)
    return np.concatenate([sums, gaps], axis=1)


def _metrics_of_sums(sums: Floats) -> dict[str, Floats]:
    """Compute the metrics of each row of sums, float64 (rows,) each."""
    photos = sums[:, 0]
    return {
        "accuracy": sums[:, 1] / photos,
        "within_one": sums[:, 2] / photos,
        "mae": sums[:, 3] / photos,
        "rmse": np.sqrt(sums[:, 4] / photos),
        "mae_of_median": sums[:, 5] / photos,
        "rmse_of_mean": np.sqrt(sums[:, 6] / photos),
        "ece": np.abs(sums[:, _SUM_COLUMNS:]).sum(axis=1) / photos,
    }


def _per_class(table: Ints) -> dict[str, dict[str, float]]:
    per_class = {}
    for index, name in enumerate(CLASSES):
        photos, predicted, correct = table[index].sum(), table[:, index].sum(), table[index, index]
        per_class[name] = {
            "photos": int(photos),
            "recall": float(correct / photos) if photos else 0.0,
            "precision": float(correct / predicted) if predicted else 0.0,
        }
    return per_class
