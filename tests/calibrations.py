"""Calibrations with few scores, written by hand."""

from __future__ import annotations

from binwatch.bundle import Category
from binwatch.counts import EVERY


def category(
    scores: tuple[float, ...], surplus: tuple[float, ...] | None = None, classes: tuple[int, ...] = EVERY
) -> Category:
    """Classes that are calibrated together. The scores are those of each suspicion, unless `surplus` has its own."""
    return Category(classes=classes, either=scores, missing=scores, surplus=scores if surplus is None else surplus)
