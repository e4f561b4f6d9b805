"""Bins drawn at random for an audit, each with a known probability: what such audits find is true of all bins."""

from __future__ import annotations

LEAST = 0.5
"""Likelihood of a bin that the model has no doubt of. A lower one would give few audits so much weight that intervals
miss the truth too often if the model is sure and wrong (benchmarks/audits.py)."""


def likelihood(chance: float | None) -> float:
    """How likely a bin is to be drawn by doubt, from LEAST to 1, relative to others.

    `chance` is the probability that the model gives to what is recorded of the bin, or to its own count if nothing is.
    """
    return 1.0 if chance is None else max(LEAST, 1 - chance)
