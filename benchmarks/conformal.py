"""Whether flagging keeps its promise on photos that the model did not learn from, and what it finds.

    python -m benchmarks.conformal PHOTOS INDEX_CSV [--model samples/model] [--splits 500]

PHOTOS is a folder or tar with KEY.jpg, INDEX_CSV has the columns key, label and bin_group. Three questions:

1. The method: the test photos, to which nothing was fitted, are parted at random by bin group, again and again; one
   half calibrates, the other is flagged. Of correctly recorded bins, at most the level may be flagged, on average.
2. The bundle as it ships, calibrated by the test photos, on the validation photos.
3. What is found: the same photos with a recorded quantity that is wrong by one, two or three.

Flagged is what the monitor flags: the count differs from the recorded quantity, and the p-value is at most the level.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from binwatch.bundle import Bundle, Calibration
from binwatch.conformal import PValues, calibrate
from binwatch.counts import CLASSES, class_of
from trainer.data.split import Split
from trainer.display import Display
from trainer.renew import answers

LEVELS = (0.01, 0.05, 0.1, 0.2)
WRONG_BY = (-3, -2, -1, 1, 2, 3)
RESAMPLES = 2_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Photos:
    """n held-out photos as the model answered them."""

    probabilities: Floats
    """Shape (n, classes)."""
    quantities: Ints
    """What is recorded of them, taken as the truth."""
    groups: Ints
    """Number of the bin group of each."""

    @property
    def labels(self) -> Ints:
        """Class of each quantity."""
        return np.array([class_of(int(quantity)) for quantity in self.quantities])

    @property
    def counts(self) -> Ints:
        """The model's count of each."""
        found: Ints = self.probabilities.argmax(axis=1)
        return found

    def where(self, wanted: Flags) -> Photos:
        """Some of them."""
        return Photos(self.probabilities[wanted], self.quantities[wanted], self.groups[wanted])


def photos_of(bundle: Bundle, photos: Path, index: Path, split: Split) -> Photos:
    """Those of one split."""
    found = answers(bundle, photos, index, split, Display())
    groups = np.unique(found.photos.groups, return_inverse=True)[1]
    return Photos(found.probabilities.astype(np.float64), found.photos.quantities, groups)


def calibration_of(photos: Photos) -> Calibration:
    """As the trainer makes it."""
    return calibrate(photos.probabilities, photos.labels, [str(group) for group in photos.groups], "test")


def p_values(values: PValues, photos: Photos) -> Floats:
    """Of every class that could be recorded, shape (n, classes)."""
    return np.array(
        [[values.of(float(chance), index) or 1.0 for index, chance in enumerate(row)] for row in photos.probabilities]
    )


def flagged(p: Floats, photos: Photos, classes: Ints, level: float) -> Flags:
    """Which photos are flagged if these classes are recorded."""
    found: Flags = (p[np.arange(len(classes)), classes] <= level) & (photos.counts != classes)
    return found


def wrong_by(photos: Photos, items: int) -> tuple[Flags, Ints]:
    """Photos whose record can be wrong by so many items and be seen to be, and the class that is then recorded."""
    recorded = photos.quantities + items
    classes = np.array([class_of(max(int(quantity), 0)) for quantity in recorded])
    return (recorded >= 0) & (classes != photos.labels), classes


def halves(photos: Photos, splits: int) -> None:
    """The first and the third question."""
    random = np.random.default_rng(0)
    right: dict[float, list[float]] = {level: [] for level in LEVELS}
    found: dict[tuple[float, int], list[float]] = {}
    by_class: dict[tuple[float, int], list[float]] = {}
    for _ in range(splits):
        side = random.random(photos.groups.max() + 1) < 0.5
        known, new = photos.where(side[photos.groups]), photos.where(~side[photos.groups])
        p = p_values(PValues(calibration_of(known)), new)
        for level in LEVELS:
            flags = flagged(p, new, new.labels, level)
            right[level].append(float(flags.mean()))
            for index in range(len(CLASSES)):
                by_class.setdefault((level, index), []).extend(flags[new.labels == index])
            for items in WRONG_BY:
                can, classes = wrong_by(new, items)
                found.setdefault((level, items), []).append(float(flagged(p, new, classes, level)[can].mean()))
    print(f"\n{splits} halves of {len(photos.quantities)} test photos: share flagged of correctly recorded bins\n")
    print("| level | flagged | 95 % of the halves | expected 0 | " + " | ".join(CLASSES[1:]) + " |")
    print("| --- " * (3 + len(CLASSES)) + "|")
    for level in LEVELS:
        low, high = np.quantile(right[level], (0.025, 0.975))
        parts = " | ".join(f"{np.mean(by_class[level, index]):.1%}" for index in range(len(CLASSES)))
        print(f"| {level:g} | {np.mean(right[level]):.1%} | {low:.1%} to {high:.1%} | {parts} |")
    print("\nShare flagged of bins whose recorded quantity is wrong by so many items\n")
    print("| level | " + " | ".join(f"{items:+d}" for items in WRONG_BY) + " |")
    print("| --- " * (1 + len(WRONG_BY)) + "|")
    for level in LEVELS:
        shares = " | ".join(f"{np.mean(found[level, items]):.1%}" for items in WRONG_BY)
        print(f"| {level:g} | {shares} |")


def shipped(calibration: Calibration, photos: Photos) -> None:
    """The second question, with intervals by bin group."""
    p = p_values(PValues(calibration), photos)
    random = np.random.default_rng(0)
    number = photos.groups.max() + 1
    print(f"\nThe bundle's calibration ({calibration.photos} photos) on {len(photos.quantities)} validation photos\n")
    print("| level | flagged | 95 % interval, by bin group |\n| --- | --- | --- |")
    sizes = np.bincount(photos.groups, minlength=number)
    for level in LEVELS:
        flags = flagged(p, photos, photos.labels, level)
        sums = np.bincount(photos.groups, weights=flags, minlength=number)
        drawn = random.integers(0, number, (RESAMPLES, number))
        shares = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        low, high = np.quantile(shares, (0.025, 0.975))
        print(f"| {level:g} | {flags.mean():.1%} | {low:.1%} to {high:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--model", type=Path, default=Path("samples/model"))
    parser.add_argument("--splits", type=int, default=500)
    options = parser.parse_args()
    bundle = Bundle(options.model)
    photos, index = options.photos, options.index
    halves(photos_of(bundle, photos, index, Split.TEST), options.splits)
    if bundle.card.calibration:
        shipped(bundle.card.calibration, photos_of(bundle, photos, index, Split.VALIDATION))


if __name__ == "__main__":
    main()
