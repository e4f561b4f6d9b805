"""Calibrations with few scores, written by hand."""

from __future__ import annotations

from binwatch.bundle import Category
from binwatch.counts import CLASS_INDEXES

UP_TO_20 = tuple(range(22))
"""All quantities of a model that tells 20 from more; the first seven are those of a model with the classes alone."""


def category(
    scores: tuple[float, ...], surplus: tuple[float, ...] | None = None, classes: tuple[int, ...] = CLASS_INDEXES
) -> Category:
    """Quantities that are calibrated together. The scores are those of each suspicion, unless `surplus` has its own."""
    return Category(classes=classes, either=scores, missing=scores, surplus=scores if surplus is None else surplus)
