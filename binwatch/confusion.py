"""Confusion matrices of the classes, and their figures: agreement, within one, MAE and RMSE."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from binwatch.counts import CLASS_INDEXES, Outcome, outcome_of_difference

INVENTORY = ""
"""Model version under which the inventory itself is compared with audits."""


class TruthSource(StrEnum):
    """Source of the true class."""

    INVENTORY = "inventory"
    AUDIT = "audit"
    """An audit by someone who had seen neither the count nor the expected quantity: ground truth."""
    SIGHTED = "sighted"
    """An audit by someone who had seen the numbers, and may merely have confirmed them."""


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Number of comparisons by true and predicted class.

    Errors are predicted − true in items, with "more than 5" taken as 6. Means are None without comparisons.
    """

    cells: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """(true class, predicted class) → number of comparisons. Missing cells are 0."""

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[int, int]]) -> ConfusionMatrix:
        """Count comparisons, each a pair (true class, predicted class)."""
        return cls(Counter(pairs))

    def where(self, true_class: int | None = None, outcome: Outcome | None = None) -> ConfusionMatrix:
        """Return the comparisons with the given true class, outcome, or both."""
        return ConfusionMatrix(
            {
                (true, predicted): count
                for (true, predicted), count in self.cells.items()
                if true_class in (None, true) and outcome in (None, outcome_of_difference(predicted - true))
            }
        )

    @property
    def rows(self) -> list[list[int]]:
        """Numbers of comparisons, with a row per true class and a column per predicted class. Shape (7, 7)."""
        return [[self.cells.get((true, predicted), 0) for predicted in CLASS_INDEXES] for true in CLASS_INDEXES]

    @property
    def comparisons(self) -> int:
        """Number of comparisons."""
        return sum(self.cells.values())

    @property
    def comparisons_within_one(self) -> int:
        """Number of comparisons whose error is at most one item."""
        return sum(count for (true, predicted), count in self.cells.items() if abs(predicted - true) <= 1)

    @property
    def absolute_error(self) -> int:
        """Sum of absolute errors, in items."""
        return sum(count * abs(predicted - true) for (true, predicted), count in self.cells.items())

    @property
    def squared_error(self) -> int:
        """Sum of squared errors, in items²."""
        return sum(count * (predicted - true) ** 2 for (true, predicted), count in self.cells.items())

    @property
    def agreement(self) -> float | None:
        """Share of comparisons with equal classes."""
        return self._mean(self.where(outcome=Outcome.EXACT).comparisons)

    @property
    def within_one(self) -> float | None:
        """Share of comparisons whose error is at most one item."""
        return self._mean(self.comparisons_within_one)

    @property
    def mae(self) -> float | None:
        """Mean absolute error in items: a lower bound, since "more than 5" counts as 6."""
        return self._mean(self.absolute_error)

    @property
    def rmse(self) -> float | None:
        """Root mean squared error in items: also a lower bound."""
        mse = self._mean(self.squared_error)
        return None if mse is None else math.sqrt(mse)

    def _mean(self, total: int) -> float | None:
        return total / self.comparisons if self.comparisons else None
