"""Whether auditors are ranked correctly, and the coverage of the intervals of their accuracy, with simulated auditors.

    python -m benchmarks.auditors INDEX_CSV [--repetitions 200]

INDEX_CSV has the columns key, label and bin_group. The bins are those of the test photos, one photo of each bin group,
and the label is their true quantity. Six auditors are right in 70 to 99 % of these bins, in equal steps; their errors
are of one item, more often one too few. The inventory is wrong in 5 % of the bins, by one item. The given number of
answers of each auditor are compared with another auditor's, with known quantities, or a fifth of them with known ones.

- Auditors: whether errors have the same probability in all bins, or are more probable the more items there are ("hard
  bins", which are the same for all auditors); and whether everybody is paired with everybody, or nine times out of ten
  within a shift of three.
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
WRONG_RECORDS, TOO_FEW, WITHIN_SHIFT = 0.05, 0.7, 0.9
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scenario:
    """How auditors err, who is paired with whom, and which share of answers is compared with known quantities."""

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
    with index.open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            if split_of(row["bin_group"]) is Split.TEST:
                first.setdefault(row["bin_group"], int(row["label"]))
    return np.array(list(first.values()))


def chances(quantities: npt.NDArray[np.int64], accuracy: float, *, hard: bool) -> Floats:
    """Probability that an auditor is right in each bin, with mean `accuracy`; lower in hard bins if `hard`."""
    if not hard:
        return np.full(len(quantities), accuracy)
    low, high = -20.0, 20.0
    for _ in range(60):  # bisection of the log odds of an error; the odds also grow with the quantity
        middle = (low + high) / 2
        right = 1 / (1 + np.exp(middle) * (1 + quantities))
        low, high = (middle, high) if right.mean() > accuracy else (low, middle)
    return np.asarray(right)


@dataclass(slots=True)
class Simulated:
    """Auditors in one order of accuracies."""

    random: np.random.Generator
    quantities: npt.NDArray[np.int64]
    right: Floats
    """Chance that each auditor is right in each bin, shape (auditors, bins)."""
    scenario: Scenario
    photos: list[Photo] = field(default_factory=list)

    def compare(self, answers: int) -> list[Photo]:
        """Photos with the auditors' answers; `answers` is the mean number per auditor."""
        people = len(self.right)
        known = round(answers * self.scenario.known)
        for auditor in np.repeat(np.arange(people), known):
            bin_ = self._bin()
            self.photos.append({str(auditor): self._answer(auditor, bin_), Source.KNOWN: int(self.quantities[bin_])})
        for _ in range(people * (answers - known) // 2):
            self.photos.append(self._pair())
        return self.photos

    def _pair(self) -> Photo:
        people, bin_ = np.arange(len(self.right)), self._bin()
        one = int(self.random.integers(len(people)))
        if self.scenario.shifts:
            same = (people < len(people) // 2) == (one < len(people) // 2)
            people = people[same == (self.random.random() < WITHIN_SHIFT)]
        other = int(self.random.choice(people[people != one]))
        wrong = self.random.random() < WRONG_RECORDS
        recorded = int(self.quantities[bin_]) + wrong * int(self.random.choice([-1, 1]))
        # The starter model's counts agree with 43 % of the right records, and with few of the wrong ones.
        agrees = self.random.random() < (0.2 if wrong else 0.43)
        source = Source.INVENTORY if agrees else Source.DOUBTED_INVENTORY
        answers: dict[str | Source, int] = {str(each): self._answer(each, bin_) for each in (one, other)}
        return answers | {source: max(recorded, 0)}

    def _bin(self) -> int:
        return int(self.random.integers(len(self.quantities)))

    def _answer(self, auditor: int, bin_: int) -> int:
        truth = int(self.quantities[bin_])
        if self.random.random() < self.right[auditor, bin_]:
            return truth
        return truth + 1 if truth == 0 or self.random.random() > TOO_FEW else truth - 1


@dataclass(slots=True)
class Tally:
    """Sums over repetitions."""

    by_agreement: int = 0
    by_estimate: int = 0
    pairs: int = 0
    orders: int = 0
    covered: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    apart: int = 0
    apart_right: int = 0

    def add(self, photos: list[Photo], accuracies: Floats) -> None:
        """Add one repetition; `accuracies` are in the order of the auditors' numbers."""
        found = {int(one.auditor): one for one in agreements(photos)}
        shares = [found[number].accuracy.share for number in range(len(accuracies))]
        self.orders += np.argsort(shares).tolist() == np.argsort(accuracies).tolist()
        for number, true in enumerate(accuracies):
            interval = found[number].accuracy.interval
            self.covered.append(bool(interval.low <= true <= interval.high))
            self.widths.append(interval.high - interval.low)
        for better, worse in combinations(np.argsort(-accuracies).tolist(), 2):
            one, other = found[better], found[worse]
            self.pairs += 1
            by_others = [each.others.exact.share if each.others else 0.0 for each in (one, other)]
            self.by_agreement += by_others[0] > by_others[1]
            self.by_estimate += one.accuracy.share > other.accuracy.share
            above, below = (a.accuracy.interval.low > b.accuracy.interval.high for a, b in ((one, other), (other, one)))
            self.apart += above or below
            self.apart_right += above


def measure(quantities: npt.NDArray[np.int64], scenario: Scenario, answers: int, repetitions: int) -> str:
    """A row of the table."""
    random, tally = np.random.default_rng(answers), Tally()
    right = np.array([chances(quantities, accuracy, hard=scenario.hard) for accuracy in ACCURACIES])
    for _ in range(repetitions):
        order = random.permutation(len(ACCURACIES))
        photos = Simulated(random, quantities, right[order], scenario).compare(answers)
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
    ways = ("pairs right by agreement", "pairs right by estimate", "all right", "covered", "width", "apart", "right")
    print("| " + " | ".join(("auditors", "answers of each", *ways)) + " |")
    print("| --- " * 9 + "|")
    for scenario in SCENARIOS:
        for answers in ANSWERS:
            print(measure(quantities, scenario, answers, options.repetitions), flush=True)


if __name__ == "__main__":
    main()
