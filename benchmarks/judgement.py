"""The rate of false flags on photos that the model was not trained on, and which wrong records flags find.

    python -m benchmarks.judgement PHOTOS INDEX_CSV METADATA [--model samples/model] [--level 0.05] [--halves 40]

Use --split validation for choices. PHOTOS is a folder or tar with KEY.jpg, INDEX_CSV has the columns key, label and
bin_group, METADATA is a folder with KEY.json. Three tables:

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
KINDS = 8
"""Distinguished numbers of kinds of articles; the last one includes more."""
LEAST = 1e-4
"""Added to probabilities in ratios, so that much smaller ones make no difference."""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Record = tuple[int, Sequence[Article]]
"""A quantity, and its articles."""


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
        """The count by the service's rule."""
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
    """`items` units too many of a listed article are recorded."""
    return lambda record, _: (record[0] + items, record[1]) if record[1] else None


def article_too_many(record: Record, other: Article) -> Record | None:
    """One unit of an article that is not in the bin is recorded."""
    return record[0] + 1, [*record[1], other]


def unit_too_few(record: Record, _: Article) -> Record | None:
    """One unit of an article with several units is not recorded."""
    quantity, items = record
    return (quantity - 1, items) if any((item["quantity"] or 0) > 1 for item in items) else None


def article_too_few(record: Record, _: Article) -> Record | None:
    """The first of several articles, which are in no particular order, is not recorded."""
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
    """Shares of each class among bins that list 0, 1, … kinds of articles, shape (KINDS, classes)."""
    bins = np.zeros((KINDS, len(CLASSES)))
    for row in rows:
        record = record_of(row.quantity, row.key, metadata)
        if record:
            bins[_kinds(record), class_of(row.quantity)] += 1
    return (bins + LEAST) / (bins + LEAST).sum(axis=1, keepdims=True)


def record_of(quantity: int, key: str, metadata: Path) -> Record | None:
    """The record of the inventory; None if there is none, or if its quantities do not add up."""
    file = metadata / f"{key}.json"
    items = parse_articles(file.read_bytes()) if file.exists() else None
    return (quantity, items) if items is not None and sum(i["quantity"] or 0 for i in items) == quantity else None


def _kinds(record: Record) -> int:
    return min(len(record[1]), KINDS - 1)


Score = Callable[[Sequence[float], Record], float]


def tail(suspicion: Suspicion, probabilities: Sequence[float], quantity: int) -> float:
    """Probability of the expected quantity or more (MISSING), or of it or fewer (SURPLUS)."""
    place = min(quantity, len(probabilities) - 1)
    return sum(probabilities[place:] if suspicion is Suspicion.MISSING else probabilities[: place + 1])


def scores(suspicion: Suspicion, table: Floats, shares: Floats) -> dict[str, Score]:
    """Scores by which bins are compared; higher is odder."""

    def together(probabilities: Sequence[float], record: Record) -> list[float]:
        found = np.array(probabilities) * table[_kinds(record)] / shares
        return (found / found.sum()).tolist() if found.sum() else list(probabilities)

    def ratio(probabilities: Sequence[float], record: Record) -> float:
        joint = tail(suspicion, together(probabilities, record), record[0])
        return -(joint + LEAST) / (tail(suspicion, table[_kinds(record)].tolist(), record[0]) + LEAST)

    if suspicion is Suspicion.EITHER:
        return {"expected alone": lambda probabilities, record: -probabilities[class_of(record[0])]}
    return {
        "photo": lambda probabilities, record: -tail(suspicion, probabilities, record[0]),
        "list alone": lambda _, record: -tail(suspicion, table[_kinds(record)].tolist(), record[0]),
        "photo and list": lambda p, record: -tail(suspicion, together(p, record), record[0]),
        "their ratio": ratio,
    }


def flags(known: Floats, known_labels: Sequence[int], new: Floats, labels: Sequence[int], level: float) -> Flags:
    """Which new scores are odd among known ones of the same class, or of neighbouring classes if there are too few."""
    of_class = np.array(known_labels)
    parts, photos = [0], 0
    for number in np.bincount(of_class, minlength=len(CLASSES)):
        photos += number
        parts.append(parts[-1] + (photos >= MIN_CATEGORY_PHOTOS))
        photos = 0 if photos >= MIN_CATEGORY_PHOTOS else photos
    last = max(parts[-1] - 1, 0)
    by_part = np.minimum(parts[:-1], last)
    found = np.zeros(len(new), bool)
    for number in range(last + 1):
        ours = np.sort(known[by_part[of_class] == number])
        here = by_part[np.array(labels)] == number
        as_odd = len(ours) - np.searchsorted(ours, new[here] - 1e-9)
        found[here] = (as_odd + 1) / (len(ours) + 1) <= level
    return found


def read(bundle: Bundle, photos: Path, index: Path, metadata: Path, split: Split) -> list[HeldOutBin]:
    """The photos of a split that have a record."""
    found = outputs_of(bundle, photos, index, split, Display())
    every = zip(found.photos.keys, found.photos.groups, found.photos.quantities, found.distribution, strict=True)
    records = ((key, group, record_of(int(q), key, metadata), row) for key, group, q, row in every)
    return [
        HeldOutBin(group, row.astype(float).tolist(), record, bundle.card.count_rule)
        for _, group, record, row in records
        if record
    ]


def calibration_of(bins: Sequence[HeldOutBin]) -> Calibration:
    """The trainer's calibration."""
    distribution = np.array([one.distribution for one in bins])
    return calibrate(distribution, np.array([one.record[0] for one in bins]), [one.group for one in bins], "test")


def flagged(values: PValueTable, one: HeldOutBin, level: float) -> dict[Suspicion, bool]:
    """Whether a bin is flagged by the monitor's rule, for each suspicion."""
    quantity = one.record[0]
    judged = judge(one.probabilities, quantity, values, one.distribution)
    predicted = one.predicted
    difference = item_difference(predicted, quantity, estimate_large_count(predicted, one.distribution))
    return {
        each: is_suspect(difference, each) and (p := judged.p_value(each)) is not None and p <= level
        for each in Suspicion
    }


def made_wrong(bins: Sequence[HeldOutBin], seed: int) -> dict[str, list[HeldOutBin | None]]:
    """The same bins with each kind of wrong record; None if that is impossible, or if the class stays the same."""
    random = np.random.default_rng(seed)
    articles = [item for one in bins for item in one.record[1]]
    others = [articles[place] for place in random.integers(len(articles), size=len(bins))]
    found: dict[str, list[HeldOutBin | None]] = {}
    for name, error in ERRORS.items():
        found[name] = []
        for one, other in zip(bins, others, strict=True):
            record = error(one.record, other)
            seen = record is not None and (record is one.record or class_of(record[0]) != one.label)
            found[name].append(replace(one, record=record) if seen and record is not None else None)
    return found


def compare(bins: Sequence[HeldOutBin], table: Floats, shares: Floats, level: float, halves: int) -> None:
    """The first two tables."""
    random, wrong = np.random.default_rng(0), made_wrong(bins, seed=1)
    groups = np.unique([one.group for one in bins], return_inverse=True)[1]
    kinds = {each: scores(each, table, shares) for each in Suspicion}
    columns = [("flag", each) for each in Suspicion] + [(name, each) for each in kinds for name in kinds[each]]
    by_score = {
        (name, each, error): np.array(
            [kinds[each][name](one.probabilities, one.record) if one else 0.0 for one in made]
        )
        for each in kinds
        for name in kinds[each]
        for error, made in wrong.items()
    }
    labels = np.array([one.label for one in bins])
    right: dict[tuple[float, Suspicion], list[float]] = {(a, b): [] for a in LEVELS for b in Suspicion}
    found: dict[tuple[str, str, Suspicion], list[float]] = {}
    for _ in range(halves):
        known = (random.random(groups.max() + 1) < 0.5)[groups]
        values = PValueTable(calibration_of([one for one, here in zip(bins, known, strict=True) if here]))
        for at in LEVELS:
            each_bin = [flagged(values, one, at) for one, here in zip(bins, known, strict=True) if not here]
            for suspicion in Suspicion:
                right[at, suspicion].append(float(np.mean([one[suspicion] for one in each_bin])))
        for error, made in wrong.items():
            new = np.array([one is not None for one in made]) & ~known
            chosen = [one for one, here in zip(made, new, strict=True) if here and one]
            said = [flagged(values, one, level) for one in chosen]
            for suspicion in Suspicion:
                found.setdefault((error, "flag", suspicion), []).append(float(np.mean([s[suspicion] for s in said])))
            for name, suspicion in [column for column in columns if column[0] != "flag"]:
                before = by_score[name, suspicion, next(iter(ERRORS))][known]
                after = by_score[name, suspicion, error][new]
                odd = flags(before, labels[known].tolist(), after, [one.label for one in chosen], level)
                found.setdefault((error, name, suspicion), []).append(float(odd.mean()))
    print(f"\n{halves} halves of {len(bins)} photos with a record: share flagged of correctly recorded bins\n")
    print("| level | " + " | ".join(Suspicion) + " |\n| --- " + "| --- " * len(Suspicion) + "|")
    for at in LEVELS:
        print(f"| {at:.0%} | " + " | ".join(_share(right[at, each]) for each in Suspicion) + " |")
    print(f"\nShare flagged at a level of {level:.0%}, by kind of error in the record\n")
    print("| error in the record | " + " | ".join(f"{name}, {each}" for name, each in columns) + " |")
    print("| --- " * (1 + len(columns)) + "|")
    for error in ERRORS:
        cells = [_share(found[error, name, each]) for name, each in columns]
        print(f"| {error} | " + " | ".join(cells) + " |")


def _share(halves: Sequence[float]) -> str:
    low, high = np.quantile(halves, (0.025, 0.975))
    return f"{np.mean(halves):.1%} ({low:.1%} to {high:.1%})"


def shipped(calibration: Calibration, bins: Sequence[HeldOutBin]) -> None:
    """The third table, with intervals by bin group."""
    values, random = PValueTable(calibration), np.random.default_rng(0)
    groups = np.unique([one.group for one in bins], return_inverse=True)[1]
    number = groups.max() + 1
    drawn, sizes = random.integers(0, number, (RESAMPLES, number)), np.bincount(groups)
    print(f"\nThe bundle's calibration ({calibration.photos} photos) on {len(bins)} validation photos with a record\n")
    print("| level | " + " | ".join(Suspicion) + " |\n| --- " + "| --- " * len(Suspicion) + "|")
    for level in LEVELS:
        each_bin = [flagged(values, one, level) for one in bins]
        cells = []
        for suspicion in Suspicion:
            sums = np.bincount(groups, weights=[float(one[suspicion]) for one in each_bin])
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
    given = (bundle, options.photos, options.index, options.metadata)
    compare(read(*given, options.split), table, shares, options.level, options.halves)
    if bundle.card.calibration and options.split is Split.TEST:
        shipped(bundle.card.calibration, read(*given, Split.VALIDATION))


if __name__ == "__main__":
    main()
