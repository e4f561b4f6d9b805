"""Self-check of a loaded model: compares its output for synthetic photos with that at export, which is in its card.

A file with the right SHA-256 may still give wrong results: on a CPU whose int8 products saturate, with a new release of
ONNX Runtime, or on a GPU. Counts would then be slightly wrong everywhere, which looks like wrong stock.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from binwatch.bundle import SelfCheck

GRID_SIZES = (2, 4, 8, 16)
"""Number of colours along the side of each photo, with interpolation in between: from smooth to speckled."""
PROBABILITY_TOLERANCE = 0.03
"""Maximum difference of a probability. The starter model's probabilities differ by 0.007 with another order of float
operations (ONNX Runtime without its optimisations), and by 0.19 with saturation (Haswell)."""
EMBEDDING_TOLERANCE = 0.08
"""Maximum distance of an embedding, as a share of its length. Measured in the same way: 0.02 and 0.34."""
_DIGITS = 5
"""Digits of the outputs in the card."""

Photos = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]


def make_photos(side: int) -> Photos:
    """Make the synthetic photos, uint8 (n, side, side, 3): the same on all machines and with all releases of NumPy."""
    return np.stack([_make_photo(grid, side) for grid in GRID_SIZES])


def make_self_check(probabilities: Floats, embeddings: Floats) -> SelfCheck:
    """Make the card's entry from the output for `make_photos`, shapes (n, quantities) and (n, embedding_size)."""
    return SelfCheck(
        probabilities=[[round(float(value), _DIGITS) for value in row] for row in probabilities],
        embeddings=[[float(f"{value:.{_DIGITS}g}") for value in row] for row in embeddings],
    )


def describe_mismatch(expected: SelfCheck, probabilities: Floats, embeddings: Floats) -> str | None:
    """Describe how the output for `make_photos` differs from the card's; None if it is within the tolerances."""
    expected_probabilities, expected_embeddings = np.array(expected.probabilities), np.array(expected.embeddings)
    for name, wanted, actual in (
        ("probabilities", expected_probabilities, probabilities),
        ("embeddings", expected_embeddings, embeddings),
    ):
        if wanted.shape != actual.shape:
            return f"its {name} have shape {actual.shape}, the card's {wanted.shape}"
    max_difference = float(np.abs(probabilities - expected_probabilities).max())
    lengths = np.linalg.norm(expected_embeddings, axis=1)
    distances = np.linalg.norm(embeddings - expected_embeddings, axis=1)
    max_distance = float((distances / np.maximum(lengths, 1e-6)).max())
    if max_difference <= PROBABILITY_TOLERANCE and max_distance <= EMBEDDING_TOLERANCE:  # both false for NaN
        return None
    return (
        f"probabilities differ from the card's by up to {max_difference:.2g} (tolerance {PROBABILITY_TOLERANCE:g}),"
        f" embeddings by up to {max_distance:.0%} (tolerance {EMBEDDING_TOLERANCE:.0%})"
    )


def _make_photo(grid: int, side: int) -> Photos:
    """Interpolate `grid` × `grid` colours from a hash, in integers: floats may round differently on other CPUs."""
    data = hashlib.shake_128(f"binwatch self-check {grid}".encode()).digest(grid * grid * 3)
    colours = np.frombuffer(data, np.uint8).reshape(grid, grid, 3).astype(np.int64)
    position = np.arange(side) * (grid - 1) * 256 // max(side - 1, 1)
    low, weight = position >> 8, (position & 255)[:, None]
    high = np.minimum(low + 1, grid - 1)
    rows = colours[low] * (256 - weight[..., None]) + colours[high] * weight[..., None]
    photo: Photos = ((rows[:, low] * (256 - weight) + rows[:, high] * weight) >> 16).astype(np.uint8)
    return photo
