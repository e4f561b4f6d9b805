"""Coverage of estimates from audits of bins drawn at random, and the effect of the model's probabilities on them.

    python -m benchmarks.audits PHOTOS INDEX_CSV [--model samples/model] [--repetitions 1000]

PHOTOS is a folder or tar with KEY.jpg, INDEX_CSV has the columns key, label and bin_group. The bins are those of the
test photos, one photo of each bin group, and the label is their true quantity. Audits are repeatedly drawn from them
with replacement, and are always right. Each row of the table is for one figure, one number of audits and one way to
draw: "alike" (uniformly), or "by doubt" as in binwatch.records.draws, more often where the recorded quantity is less
probable.

- Covered: how often the 95 % interval contains the true share of all these bins, by audits alone and with predictions.
- Width: mean width of the interval by audits alone of bins drawn alike, in percentage points. Narrower: by how much
  the intervals are narrower (negative: wider) if drawn by doubt, with predictions, or both.
- Explained: the share of the variance of the answers that predictions explain, R². Bins drawn alike need 36 % for
  intervals that are 20 % narrower, since these shrink with √(1 − R²).

To see when predictions have more effect, two models are simulated: their calibrated probabilities of being right have a
Beta distribution that explains 40 % of the variance. Wrong records, with one item more or fewer, are simulated as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from binwatch.bundle import Bundle
from binwatch.counts import MORE_THAN_5, class_probabilities
from binwatch.records.draws import draw_likelihood
from monitor.estimates import Predictions, ShareEstimate, estimate
from trainer.data.split import Split
from trainer.display import Display
from trainer.export.card_update import outputs_of

AUDIT_COUNTS = (50, 200, 1_000)
WRONG_RECORD_SHARES = (0.02, 0.05, 0.1)
SIMULATED_R2 = 0.4
"""R² of the simulated models."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of all bins to be estimated. Arrays have shape (bins,)."""

    name: str
    answers: Floats
    predicted: Floats
    doubt: Floats
    """Relative likelihood of being drawn by doubt."""

    @property
    def explained(self) -> float:
        """R² of the predictions."""
        return float(np.corrcoef(self.answers, self.predicted)[0, 1] ** 2)


def figures(probabilities: Floats, quantities: npt.NDArray[np.int64], seed: int = 0) -> Iterator[Figure]:
    """Shares to be estimated for bins whose photos have `probabilities` of the classes, shape (bins, 7)."""
    random, bins = np.random.default_rng(seed), len(quantities)
    true, top = np.minimum(quantities, MORE_THAN_5), probabilities.max(axis=1)

    def probability_of(classes: npt.NDArray[np.int64]) -> Floats:
        return np.asarray(probabilities[np.arange(bins), classes])

    right = (probabilities.argmax(axis=1) == true).astype(float)
    yield Figure("counts right", right, top, _likelihoods(probability_of(true)))
    for share in WRONG_RECORD_SHARES:
        shift = np.where(random.random(bins) < 0.5, -1, 1)
        shift[quantities == 0] = 1
        recorded = np.where(random.random(bins) < share, quantities + shift, quantities)
        probability = probability_of(np.minimum(recorded, MORE_THAN_5))
        yield Figure(
            f"records wrong, {share:.0%} made so",
            (recorded != quantities) * 1.0,
            1 - probability,
            _likelihoods(probability),
        )
    for accuracy in (0.42, 0.9):
        spread = 1 / SIMULATED_R2 - 1
        simulated = random.beta(accuracy * spread, (1 - accuracy) * spread, 10_000)
        answers = (random.random(len(simulated)) < simulated).astype(float)
        yield Figure(f"made-up model, {accuracy:.0%} right", answers, simulated, _likelihoods(simulated))


def _likelihoods(probabilities: Floats) -> Floats:
    return np.array([draw_likelihood(float(probability)) for probability in probabilities])


def outputs_by_bin_group(bundle: Bundle, photos: Path, index: Path) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Class probabilities and quantities of one random test photo of each bin group."""
    outputs = outputs_of(bundle, photos, index, Split.TEST, Display())
    drawn = np.random.default_rng(0).permutation(len(outputs.photos.keys))
    first = np.unique(np.array(outputs.photos.groups)[drawn], return_index=True)[1]
    chosen = np.sort(drawn[first])
    probabilities = class_probabilities(outputs.distribution[chosen]).astype(np.float64)
    return probabilities, np.array(outputs.photos.quantities)[chosen]


def measure(figure: Figure, audits: int, repetitions: int) -> str:
    """The two rows of the table for a figure and a number of audits."""
    random, truth = np.random.default_rng(audits), figure.answers.mean()
    rows, width = [], 0.0
    for way, likelihoods in (("alike", np.ones(len(figure.answers))), ("by doubt", figure.doubt)):
        estimates: dict[bool, list[ShareEstimate]] = {False: [], True: []}
        mean = float(figure.predicted.mean())
        for drawn in random.choice(len(likelihoods), (repetitions, audits), p=likelihoods / likelihoods.sum()):
            audited = figure.answers[drawn], likelihoods[drawn]
            estimates[False].append(estimate(*audited))
            estimates[True].append(estimate(*audited, Predictions(figure.predicted[drawn], mean)))
        width = width or _mean_width(estimates[False])
        covered = [
            np.mean([each.interval.low <= truth <= each.interval.high for each in column])
            for column in estimates.values()
        ]
        cells = [
            f"{share:.1%} | {1 - _mean_width(column) / width:+.1%}"
            for share, column in zip(covered, estimates.values(), strict=True)
        ]
        labels = f"{figure.name} | {truth:.1%} | {figure.explained:.1%} | {audits:,} | {way}"
        rows.append(f"| {labels} | {100 * width:.1f} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _mean_width(estimates: list[ShareEstimate]) -> float:
    return float(np.mean([each.interval.high - each.interval.low for each in estimates]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--model", type=Path, default=Path("samples/model"))
    parser.add_argument("--repetitions", type=int, default=1_000)
    options = parser.parse_args()
    probabilities, quantities = outputs_by_bin_group(Bundle(options.model), options.photos, options.index)
    print(f"{len(quantities)} bins, {options.repetitions:,} repetitions\n")
    columns = ("covered, audits alone", "narrower", "covered, with predictions", "narrower")
    print("| " + " | ".join(("figure", "truth", "explained", "audits", "drawn", "width", *columns)) + " |")
    print("| --- " * 10 + "|")
    for figure in figures(probabilities, quantities):
        for audits in AUDIT_COUNTS:
            print(measure(figure, audits, options.repetitions), flush=True)


if __name__ == "__main__":
    main()
