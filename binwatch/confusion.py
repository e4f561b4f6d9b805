"""Confusion matrices of the classes, with agreement, within one, MAE and RMSE."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from binwatch.counts import EVERY, Outcome, outcome_by

INVENTORY = ""
"""Takes the place of a model's version where audits judge the inventory itself."""


class TruthSource(StrEnum):
    """Source of the true class."""

    INVENTORY = "inventory"
    AUDIT = "audit"
    """An audit by somebody who had seen neither the count nor the expected quantity: ground truth."""
    SIGHTED = "sighted"
    """An audit by somebody who had seen the numbers, and may just have confirmed them."""


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """How often each class was predicted for each true class.

    Errors are predicted − true in items, with "more than 5" taken as 6. Means are None where nothing was compared.
    """

    cells: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """(true class, predicted class) → comparisons. Missing cells are 0."""

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> ConfusionMatrix:
        """The matrix of single comparisons, each a (true class, predicted class)."""
        return cls(Counter(pairs))

    def where(self, true_class: int | None = None, outcome: Outcome | None = None) -> ConfusionMatrix:
        """The comparisons with the given true class, outcome, or both."""
        return ConfusionMatrix(
            {
                (true, predicted): number
                for (true, predicted), number in self.cells.items()
                if true_class in (None, true) and outcome in (None, outcome_by(predicted - true))
            }
        )

    @property
    def rows(self) -> list[list[int]]:
        """A row for each true class, a column for each predicted class. Shape (7, 7)."""
        return [[self.cells.get((true, predicted), 0) for predicted in EVERY] for true in EVERY]

    @property
    def comparisons(self) -> int:
        """Number of comparisons."""
        return sum(self.cells.values())

    @property
    def comparisons_within_one(self) -> int:
        """Number of comparisons whose error is at most one item."""
        return sum(number for (true, predicted), number in self.cells.items() if abs(predicted - true) <= 1)

    @property
    def absolute_error(self) -> int:
        """Sum of absolute errors, in items."""
        return sum(number * abs(predicted - true) for (true, predicted), number in self.cells.items())

    @property
    def squared_error(self) -> int:
        """Sum of squared errors, in items²."""
        return sum(number * (predicted - true) ** 2 for (true, predicted), number in self.cells.items())

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
        """Root mean squared error in items, also a lower bound."""
        squared = self._mean(self.squared_error)
        return None if squared is None else math.sqrt(squared)

    def _mean(self, total: int) -> float | None:
        return total / self.comparisons if self.comparisons else None
