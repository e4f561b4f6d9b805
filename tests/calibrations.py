"""Small hand-written calibrations."""

from __future__ import annotations

from binwatch.bundle import Category
from binwatch.counts import CLASS_INDEXES

UP_TO_20 = tuple(range(22))
"""Classes of a model that distinguishes quantities up to 20; the first seven are the classes of a basic model."""


def category(
    scores: tuple[float, ...], surplus: tuple[float, ...] | None = None, classes: tuple[int, ...] = CLASS_INDEXES
) -> Category:
    """Return a category of classes calibrated together; `scores` apply to every suspicion unless `surplus` is given."""
    return Category(classes=classes, either=scores, missing=scores, surplus=scores if surplus is None else surplus)
