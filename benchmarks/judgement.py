"""The rate of false flags on photos that the model was not trained on, and the share of wrong records that are flagged.

    python -m benchmarks.judgement PHOTOS INDEX_CSV METADATA [--model samples/model] [--level 0.05] [--halves 40]

Use --split validation to choose between alternatives. PHOTOS is a folder or tar with KEY.jpg, INDEX_CSV has the columns
key, label and bin_group, METADATA is a folder with KEY.json. Three tables:

1. The test photos, to which nothing was fitted, are repeatedly divided at random by bin group; one half calibrates, the
   other is flagged. The mean share of flagged bins among correctly recorded ones may be at most the level.
2. The share that is flagged in the same halves if records are changed to wrong ones. For comparison, the table also has
   flags by the list of articles without their quantities: by the list alone, by photo and list together, and by the
   ratio of the two, which shows how much the photo adds to the list. The distribution by the list is counted on the
   training split: the numbers of items in bins with the same number of kinds of articles.
3. The bundle's own calibration, which is from the test photos, on the validation photos.

A bin is flagged by the monitor's rule: the count differs from the recorded quantity in the direction of the suspicion,
and the p-value is at most the level. In table 2, for comparing scores, a p-value of at most the level suffices;
"expected alone" is the score of earlier versions, the probability of the expected quantity.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from binwatch.bundle import Bundle, Calibration
from binwatch.conformal import MIN_CATEGORY_PHOTOS, PValueTable, calibrate, judge
from binwatch.counts import (
    CLASSES,
    CountRule,
    Suspicion,
    class_of,
    class_probabilities,
    estimate_large_count,
    is_suspect,
    item_difference,
    predict_counts,
)
from binwatch.metadata import Article, parse_articles
from trainer.data.index import Row, read_index
from trainer.data.split import Split
from trainer.display import Display
from trainer.evaluation.evaluate import bundle_data
from trainer.export.card_update import outputs_of

LEVELS = (0.01, 0.05, 0.1, 0.2)
RESAMPLES = 2_000
KIND_COUNTS = 8
"""Rows of the list table: numbers of kinds of articles. The last row includes larger numbers."""
EPSILON = 1e-4
"""Added to probabilities in ratios, so that much smaller ones make no difference."""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Record = tuple[int, Sequence[Article]]
"""A recorded quantity and its list of articles."""


@dataclass(frozen=True, slots=True)
class HeldOutBin:
    """A held-out photo with the model's distribution, and its record."""

    group: str
    distribution: list[float]
    """Probabilities of 0, 1, … items and of more."""
    record: Record
    rule: CountRule

    @property
    def predicted(self) -> int:
        """The count by the card's rule."""
        return int(predict_counts(self.rule, np.array(self.probabilities)))

    @property
    def probabilities(self) -> list[float]:
        """Probabilities of the classes."""
        return class_probabilities(np.array(self.distribution)).tolist()  # type: ignore[no-any-return]

    @property
    def label(self) -> int:
        """Class of the recorded quantity."""
        return class_of(self.record[0])


def too_many(items: int) -> Callable[[Record, Article], Record | None]:
    """An error that records `items` units too many of a listed article."""
    return lambda record, _: (record[0] + items, record[1]) if record[1] else None


def article_too_many(record: Record, other: Article) -> Record | None:
    """Record one unit of an article that is not in the bin."""
    return record[0] + 1, [*record[1], other]


def unit_too_few(record: Record, _: Article) -> Record | None:
    """Omit one unit of an article with several units; None if there is no such article."""
    quantity, items = record
    return (quantity - 1, items) if any((item["quantity"] or 0) > 1 for item in items) else None


def article_too_few(record: Record, _: Article) -> Record | None:
    """Omit the first of several articles, which are in no particular order; None if there is only one."""
    (quantity, items), units = record, record[1][0]["quantity"] if len(record[1]) > 1 else None
    return (quantity - units, items[1:]) if units and units <= quantity else None


ERRORS: Mapping[str, Callable[[Record, Article], Record | None]] = {
    "(correct: false flags)": lambda record, _: record,
    "one unit too many of a listed article": too_many(1),
    "one article too many": article_too_many,
    "two units too many": too_many(2),
    "one unit too few": unit_too_few,
    "one article too few": article_too_few,
}


def list_table(rows: Sequence[Row], metadata: Path) -> Floats:
    """Shares of the classes among bins that list 0, 1, … kinds of articles, shape (KIND_COUNTS, classes)."""
    bins = np.zeros((KIND_COUNTS, len(CLASSES)))
    for row in rows:
        record = record_of(row.quantity, row.key, metadata)
        if record:
            bins[_kinds(record), class_of(row.quantity)] += 1
    return (bins + EPSILON) / (bins + EPSILON).sum(axis=1, keepdims=True)


def record_of(quantity: int, key: str, metadata: Path) -> Record | None:
    """The inventory's record of a bin; None if there is none, or if its quantities do not add up."""
    file = metadata / f"{key}.json"
    items = parse_articles(file.read_bytes()) if file.exists() else None
    return (quantity, items) if items is not None and sum(i["quantity"] or 0 for i in items) == quantity else None


def _kinds(record: Record) -> int:
    """Row of the list table."""
    return min(len(record[1]), KIND_COUNTS - 1)


Score = Callable[[Sequence[float], Record], float]


def tail(suspicion: Suspicion, probabilities: Sequence[float], quantity: int) -> float:
    """Probability of the expected quantity or more (MISSING), or of it or fewer (SURPLUS)."""
    index = min(quantity, len(probabilities) - 1)
    return sum(probabilities[index:] if suspicion is Suspicion.MISSING else probabilities[: index + 1])


def scores(suspicion: Suspicion, table: Floats, shares: Floats) -> dict[str, Score]:
    """Scores by name. A higher score means a more suspicious record."""

    def combined(probabilities: Sequence[float], record: Record) -> list[float]:
        product = np.array(probabilities) * table[_kinds(record)] / shares
        return (product / product.sum()).tolist() if product.sum() else list(probabilities)

    def ratio(probabilities: Sequence[float], record: Record) -> float:
        joint = tail(suspicion, combined(probabilities, record), record[0])
        return -(joint + EPSILON) / (tail(suspicion, table[_kinds(record)].tolist(), record[0]) + EPSILON)

    if suspicion is Suspicion.EITHER:
        return {"expected alone": lambda probabilities, record: -probabilities[class_of(record[0])]}
    return {
        "photo": lambda probabilities, record: -tail(suspicion, probabilities, record[0]),
        "list alone": lambda _, record: -tail(suspicion, table[_kinds(record)].tolist(), record[0]),
        "photo and list": lambda p, record: -tail(suspicion, combined(p, record), record[0]),
        "their ratio": ratio,
    }


def flags(known: Floats, known_labels: Sequence[int], new: Floats, labels: Sequence[int], level: float) -> Flags:
    """Which new scores have a p-value of at most `level` among known scores of the same class.

    Neighbouring classes with too few known scores share a category.
    """
    known_classes = np.array(known_labels)
    categories, photos = [0], 0
    for class_photos in np.bincount(known_classes, minlength=len(CLASSES)):
        photos += class_photos
        categories.append(categories[-1] + (photos >= MIN_CATEGORY_PHOTOS))
        photos = 0 if photos >= MIN_CATEGORY_PHOTOS else photos
    last = max(categories[-1] - 1, 0)
    category_of_class = np.minimum(categories[:-1], last)
    flagged_scores = np.zeros(len(new), bool)
    for category in range(last + 1):
        reference = np.sort(known[category_of_class[known_classes] == category])
        in_category = category_of_class[np.array(labels)] == category
        at_least_as_high = len(reference) - np.searchsorted(reference, new[in_category] - 1e-9)
        flagged_scores[in_category] = (at_least_as_high + 1) / (len(reference) + 1) <= level
    return flagged_scores


def read_bins(bundle: Bundle, photos: Path, index: Path, metadata: Path, split: Split) -> list[HeldOutBin]:
    """The photos of a split that have a record."""
    outputs = outputs_of(bundle, photos, index, split, Display())
    rows = zip(outputs.photos.keys, outputs.photos.groups, outputs.photos.quantities, outputs.distribution, strict=True)
    return [
        HeldOutBin(group, distribution.astype(float).tolist(), record, bundle.card.count_rule)
        for key, group, quantity, distribution in rows
        if (record := record_of(int(quantity), key, metadata))
    ]


def calibration_of(bins: Sequence[HeldOutBin]) -> Calibration:
    """The calibration that the trainer would compute from these bins."""
    distribution = np.array([each.distribution for each in bins])
    return calibrate(distribution, np.array([each.record[0] for each in bins]), [each.group for each in bins], "test")


def flagged(p_values: PValueTable, held_out: HeldOutBin, level: float) -> dict[Suspicion, bool]:
    """Whether a bin is flagged by the monitor's rule, for each suspicion."""
    quantity, predicted = held_out.record[0], held_out.predicted
    judged = judge(held_out.probabilities, quantity, p_values, held_out.distribution)
    difference = item_difference(predicted, quantity, estimate_large_count(predicted, held_out.distribution))
    return {
        each: is_suspect(difference, each) and (p := judged.p_value(each)) is not None and p <= level
        for each in Suspicion
    }


def made_wrong(bins: Sequence[HeldOutBin], seed: int) -> dict[str, list[HeldOutBin | None]]:
    """The bins by kind of error in the record; None if that error is impossible, or if the class stays the same."""
    random = np.random.default_rng(seed)
    articles = [article for held_out in bins for article in held_out.record[1]]
    other_articles = [articles[index] for index in random.integers(len(articles), size=len(bins))]
    by_error: dict[str, list[HeldOutBin | None]] = {}
    for name, error in ERRORS.items():
        by_error[name] = []
        for held_out, other in zip(bins, other_articles, strict=True):
            record = error(held_out.record, other)
            visible = record is not None and (record is held_out.record or class_of(record[0]) != held_out.label)
            by_error[name].append(replace(held_out, record=record) if visible and record is not None else None)
    return by_error


def compare(bins: Sequence[HeldOutBin], table: Floats, shares: Floats, level: float, halves: int) -> None:
    """Print the first two tables."""
    random, wrong = np.random.default_rng(0), made_wrong(bins, seed=1)
    groups = np.unique([each.group for each in bins], return_inverse=True)[1]
    score_functions = {each: scores(each, table, shares) for each in Suspicion}
    score_columns = [(name, each) for each in score_functions for name in score_functions[each]]
    columns = [("flag", each) for each in Suspicion] + score_columns
    by_score = {
        (name, each, error): np.array(
            [score_functions[each][name](bin_.probabilities, bin_.record) if bin_ else 0.0 for bin_ in variants]
        )
        for name, each in score_columns
        for error, variants in wrong.items()
    }
    labels = np.array([each.label for each in bins])
    false_flags: dict[tuple[float, Suspicion], list[float]] = {
        (alpha, each): [] for alpha in LEVELS for each in Suspicion
    }
    flagged_shares: dict[tuple[str, str, Suspicion], list[float]] = {}
    for _ in range(halves):
        known = (random.random(groups.max() + 1) < 0.5)[groups]
        p_values = PValueTable(calibration_of([bin_ for bin_, is_known in zip(bins, known, strict=True) if is_known]))
        for alpha in LEVELS:
            results = [
                flagged(p_values, bin_, alpha) for bin_, is_known in zip(bins, known, strict=True) if not is_known
            ]
            for suspicion in Suspicion:
                false_flags[alpha, suspicion].append(float(np.mean([result[suspicion] for result in results])))
        for error, variants in wrong.items():
            new = np.array([bin_ is not None for bin_ in variants]) & ~known
            new_bins = [bin_ for bin_, is_new in zip(variants, new, strict=True) if is_new and bin_]
            results = [flagged(p_values, bin_, level) for bin_ in new_bins]
            for suspicion in Suspicion:
                share = float(np.mean([result[suspicion] for result in results]))
                flagged_shares.setdefault((error, "flag", suspicion), []).append(share)
            for name, suspicion in score_columns:
                before = by_score[name, suspicion, next(iter(ERRORS))][known]
                after = by_score[name, suspicion, error][new]
                is_flagged = flags(before, labels[known].tolist(), after, [bin_.label for bin_ in new_bins], level)
                flagged_shares.setdefault((error, name, suspicion), []).append(float(is_flagged.mean()))
    print(f"\n{halves} halves of {len(bins)} photos with a record: share flagged of correctly recorded bins\n")
    print("| level | " + " | ".join(Suspicion) + " |\n| --- " + "| --- " * len(Suspicion) + "|")
    for alpha in LEVELS:
        print(
            f"| {alpha:.0%} | " + " | ".join(_mean_and_interval(false_flags[alpha, each]) for each in Suspicion) + " |"
        )
    print(f"\nShare flagged at a level of {level:.0%}, by kind of error in the record\n")
    print("| error in the record | " + " | ".join(f"{name}, {each}" for name, each in columns) + " |")
    print("| --- " * (1 + len(columns)) + "|")
    for error in ERRORS:
        cells = [_mean_and_interval(flagged_shares[error, name, each]) for name, each in columns]
        print(f"| {error} | " + " | ".join(cells) + " |")


def _mean_and_interval(halves: Sequence[float]) -> str:
    low, high = np.quantile(halves, (0.025, 0.975))
    return f"{np.mean(halves):.1%} ({low:.1%} to {high:.1%})"


def show_bundle_calibration(calibration: Calibration, bins: Sequence[HeldOutBin]) -> None:
    """Print the third table, with intervals by bin group."""
    p_values, random = PValueTable(calibration), np.random.default_rng(0)
    groups = np.unique([each.group for each in bins], return_inverse=True)[1]
    group_count = groups.max() + 1
    drawn, sizes = random.integers(0, group_count, (RESAMPLES, group_count)), np.bincount(groups)
    print(f"\nThe bundle's calibration ({calibration.photos} photos) on {len(bins)} validation photos with a record\n")
    print("| level | " + " | ".join(Suspicion) + " |\n| --- " + "| --- " * len(Suspicion) + "|")
    for level in LEVELS:
        results = [flagged(p_values, bin_, level) for bin_ in bins]
        cells = []
        for suspicion in Suspicion:
            sums = np.bincount(groups, weights=[float(result[suspicion]) for result in results])
            low, high = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), (0.025, 0.975))
            cells.append(f"{sums.sum() / sizes.sum():.1%} ({low:.1%} to {high:.1%})")
        print(f"| {level:.0%} | " + " | ".join(cells) + " |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("metadata", type=Path)
    parser.add_argument("--model", type=Path, default=Path("samples/model"))
    parser.add_argument("--level", type=float, default=0.05)
    parser.add_argument("--halves", type=int, default=40)
    parser.add_argument("--split", type=Split, default=Split.TEST)
    options = parser.parse_args()
    bundle = Bundle(options.model)
    config = bundle_data(bundle, {"photos": options.photos, "index": options.index})
    rows = [row for row in read_index(config) if row.split is Split.TRAIN]
    table = list_table(rows, options.metadata)
    shares = np.bincount([class_of(row.quantity) for row in rows], minlength=len(CLASSES)) / len(rows)
    sources = (bundle, options.photos, options.index, options.metadata)
    compare(read_bins(*sources, options.split), table, shares, options.level, options.halves)
    if bundle.card.calibration and options.split is Split.TEST:
        show_bundle_calibration(bundle.card.calibration, read_bins(*sources, Split.VALIDATION))


if __name__ == "__main__":
    main()
