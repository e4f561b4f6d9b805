"""Ranking of auditors and coverage of the intervals of their accuracy, with simulated auditors.

    python -m benchmarks.auditors INDEX_CSV [--repetitions 200]

INDEX_CSV has the columns key, label and bin_group. The bins are those of the test photos, one photo of each bin group,
and the label is their true quantity. Six auditors are right in 70 to 99 % of these bins, in equal steps; their errors
are of one item, more often one too few. The inventory is wrong in 5 % of the bins, by one item. Each auditor's answers
are compared with another auditor's, with known quantities, or one fifth of them with known quantities.

- Auditors: whether errors have the same probability in all bins, or are more probable the more items there are ("hard
  bins", which are the same for all auditors); and whether all auditors are paired with each other, or nine times out of
  ten within a shift of three.
- Pairs right: how often the better of two auditors has the higher figure, by agreement with others alone, and by
  estimated accuracy. All right: how often all six are in the correct order.
- Covered: how often the 95 % interval contains the auditor's true accuracy. Apart: how often the intervals of two
  auditors do not overlap, and how often the better one's is then the higher one.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monitor.agreement import Photo, Source, agreements
from trainer.data.split import Split, split_of

ACCURACIES = np.linspace(0.7, 0.99, 6)
ANSWERS = (50, 200)
WRONG_RECORD_SHARE = 0.05
TOO_FEW_SHARE = 0.7
"""Share of wrong answers that are one item too few."""
WITHIN_SHIFT_SHARE = 0.9
"""Share of pairs that are of the same shift, if there are shifts."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scenario:
    """How auditors err, whether they are paired by shift, and the share of answers compared with known quantities."""

    name: str
    hard: bool
    shifts: bool
    known: float


SCENARIOS = (
    Scenario("by chance, all with all", hard=False, shifts=False, known=0.0),
    Scenario("by chance, in shifts", hard=False, shifts=True, known=0.0),
    Scenario("hard bins, in shifts", hard=True, shifts=True, known=0.0),
    Scenario("hard bins, in shifts, a fifth known", hard=True, shifts=True, known=0.2),
    Scenario("hard bins, all known", hard=True, shifts=False, known=1.0),
)


def quantities_of(index: Path) -> npt.NDArray[np.int64]:
    """The quantity of the first test photo of each bin group."""
    first: dict[str, int] = {}
    with index.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if split_of(row["bin_group"]) is Split.TEST:
                first.setdefault(row["bin_group"], int(row["label"]))
    return np.array(list(first.values()))


def correct_probabilities(quantities: npt.NDArray[np.int64], accuracy: float, *, hard: bool) -> Floats:
    """Probability of a correct answer for each bin, with mean `accuracy`; if `hard`, lower for larger quantities."""
    if not hard:
        return np.full(len(quantities), accuracy)
    low, high = -20.0, 20.0
    for _ in range(60):  # bisection of the log odds of an error; the odds also grow with the quantity
        middle = (low + high) / 2
        right = 1 / (1 + np.exp(middle) * (1 + quantities))
        low, high = (middle, high) if right.mean() > accuracy else (low, middle)
    return np.asarray(right)


@dataclass(slots=True)
class SimulatedAudits:
    """Simulated auditors and their answers."""

    random: np.random.Generator
    quantities: npt.NDArray[np.int64]
    correct_probability: Floats
    """Probability that each auditor is right in each bin, shape (auditors, bins)."""
    scenario: Scenario
    photos: list[Photo] = field(default_factory=list)

    def compare(self, answers: int) -> list[Photo]:
        """Simulate audits with a mean of `answers` per auditor. Returns the audited photos with their answers."""
        auditors = len(self.correct_probability)
        known = round(answers * self.scenario.known)
        for auditor in np.repeat(np.arange(auditors), known):
            bin_ = self._random_bin()
            self.photos.append({str(auditor): self._answer(auditor, bin_), Source.KNOWN: int(self.quantities[bin_])})
        for _ in range(auditors * (answers - known) // 2):
            self.photos.append(self._pair())
        return self.photos

    def _pair(self) -> Photo:
        candidates, bin_ = np.arange(len(self.correct_probability)), self._random_bin()
        first = int(self.random.integers(len(candidates)))
        if self.scenario.shifts:
            same_shift = (candidates < len(candidates) // 2) == (first < len(candidates) // 2)
            candidates = candidates[same_shift == (self.random.random() < WITHIN_SHIFT_SHARE)]
        second = int(self.random.choice(candidates[candidates != first]))
        wrong = self.random.random() < WRONG_RECORD_SHARE
        recorded = int(self.quantities[bin_]) + wrong * int(self.random.choice([-1, 1]))
        # The starter model's counts agree with 43 % of the right records, and with few of the wrong ones.
        agrees = self.random.random() < (0.2 if wrong else 0.43)
        source = Source.INVENTORY if agrees else Source.DOUBTED_INVENTORY
        answers: dict[str | Source, int] = {str(auditor): self._answer(auditor, bin_) for auditor in (first, second)}
        return answers | {source: max(recorded, 0)}

    def _random_bin(self) -> int:
        return int(self.random.integers(len(self.quantities)))

    def _answer(self, auditor: int, bin_: int) -> int:
        truth = int(self.quantities[bin_])
        if self.random.random() < self.correct_probability[auditor, bin_]:
            return truth
        return truth + 1 if truth == 0 or self.random.random() > TOO_FEW_SHARE else truth - 1


@dataclass(slots=True)
class Tally:
    """Sums over repetitions."""

    by_agreement: int = 0
    """Pairs ordered correctly by agreement with others."""
    by_estimate: int = 0
    """Pairs ordered correctly by estimated accuracy."""
    pairs: int = 0
    orders: int = 0
    """Repetitions in which all auditors are in the correct order."""
    covered: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    apart: int = 0
    """Pairs whose intervals do not overlap."""
    apart_right: int = 0
    """Those in which the better auditor's interval is the higher one."""

    def add(self, photos: list[Photo], accuracies: Floats) -> None:
        """Add one repetition; `accuracies` are in the order of the auditors' numbers."""
        by_auditor = {int(each.auditor): each for each in agreements(photos)}
        shares = [by_auditor[auditor].accuracy.share for auditor in range(len(accuracies))]
        self.orders += np.argsort(shares).tolist() == np.argsort(accuracies).tolist()
        for auditor, accuracy in enumerate(accuracies):
            interval = by_auditor[auditor].accuracy.interval
            self.covered.append(bool(interval.low <= accuracy <= interval.high))
            self.widths.append(interval.high - interval.low)
        for better_id, worse_id in combinations(np.argsort(-accuracies).tolist(), 2):
            better, worse = by_auditor[better_id], by_auditor[worse_id]
            self.pairs += 1
            agreed = [each.others.exact.share if each.others else 0.0 for each in (better, worse)]
            self.by_agreement += agreed[0] > agreed[1]
            self.by_estimate += better.accuracy.share > worse.accuracy.share
            intervals = better.accuracy.interval, worse.accuracy.interval
            above, below = (a.low > b.high for a, b in (intervals, intervals[::-1]))
            self.apart += above or below
            self.apart_right += above


def measure(quantities: npt.NDArray[np.int64], scenario: Scenario, answers: int, repetitions: int) -> str:
    """One row of the table."""
    random, tally = np.random.default_rng(answers), Tally()
    right = np.array([correct_probabilities(quantities, accuracy, hard=scenario.hard) for accuracy in ACCURACIES])
    for _ in range(repetitions):
        order = random.permutation(len(ACCURACIES))
        photos = SimulatedAudits(random, quantities, right[order], scenario).compare(answers)
        tally.add(photos, ACCURACIES[order])
    alone = "–" if scenario.known == 1 else f"{tally.by_agreement / tally.pairs:.1%}"
    cells = (
        *(scenario.name, f"{answers}", alone, f"{tally.by_estimate / tally.pairs:.1%}"),
        *(f"{tally.orders / repetitions:.0%}", f"{np.mean(tally.covered):.1%}", f"{100 * np.mean(tally.widths):.1f}"),
        *(f"{tally.apart / tally.pairs:.0%}", f"{tally.apart_right / max(tally.apart, 1):.2%}"),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--repetitions", type=int, default=200)
    options = parser.parse_args()
    quantities = quantities_of(options.index)
    print(f"{len(quantities)} bins, {options.repetitions:,} repetitions\n")
    columns = ("pairs right by agreement", "pairs right by estimate", "all right", "covered", "width", "apart", "right")
    print("| " + " | ".join(("auditors", "answers of each", *columns)) + " |")
    print("| --- " * 9 + "|")
    for scenario in SCENARIOS:
        for answers in ANSWERS:
            print(measure(quantities, scenario, answers, options.repetitions), flush=True)


if __name__ == "__main__":
    main()
