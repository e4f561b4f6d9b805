"""The self-check: compares a loaded model's output for synthetic photos with the output at export in its card.

A file with the right SHA-256 may still give wrong results: on a CPU whose int8 products saturate, with a new release of
ONNX Runtime, or on a GPU. Counts would then be slightly wrong everywhere, which looks like wrong stock.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from binwatch.bundle import SelfCheck

GRIDS = (2, 4, 8, 16)
"""Number of colours along the side of each photo, interpolated in between: from smooth to speckled."""
PROBABILITY = 0.03
"""Tolerance for a probability. The starter model's differ by 0.007 with another order of float operations (ONNX Runtime
without its optimisations), and by 0.19 with saturation (Haswell)."""
EMBEDDING = 0.08
"""Tolerance for an embedding, as a share of its length. Measured likewise: 0.02 and 0.34."""
_DIGITS = 5

Photos = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]


def photos(side: int) -> Photos:
    """The synthetic photos, uint8 (n, side, side, 3): the same on every machine and with every release of NumPy."""
    return np.stack([_photo(grid, side) for grid in GRIDS])


def answers(probabilities: Floats, embeddings: Floats) -> SelfCheck:
    """The card's entry: the output for `photos`, shapes (n, quantities) and (n, embedding_size)."""
    return SelfCheck(
        probabilities=[[round(float(value), _DIGITS) for value in row] for row in probabilities],
        embeddings=[[float(f"{value:.{_DIGITS}g}") for value in row] for row in embeddings],
    )


def difference(expected: SelfCheck, probabilities: Floats, embeddings: Floats) -> str | None:
    """How the output for `photos` differs from the card's, in words; None if it is within the tolerances."""
    wanted = np.array(expected.probabilities), np.array(expected.embeddings)
    for name, card, found in zip(("probabilities", "embeddings"), wanted, (probabilities, embeddings), strict=True):
        if card.shape != found.shape:
            return f"its {name} have shape {found.shape}, the card's {card.shape}"
    most = float(np.abs(probabilities - wanted[0]).max())
    lengths = np.linalg.norm(wanted[1], axis=1)
    share = float((np.linalg.norm(embeddings - wanted[1], axis=1) / np.maximum(lengths, 1e-6)).max())
    if most <= PROBABILITY and share <= EMBEDDING:  # NaN is neither
        return None
    return (
        f"probabilities differ from the card's by up to {most:.2g} (tolerance {PROBABILITY:g}),"
        f" embeddings by up to {share:.0%} (tolerance {EMBEDDING:.0%})"
    )


def _photo(grid: int, side: int) -> Photos:
    """`grid` × `grid` colours from a hash, interpolated with integers, since floats may round differently elsewhere."""
    data = hashlib.shake_128(f"binwatch self-check {grid}".encode()).digest(grid * grid * 3)
    colours = np.frombuffer(data, np.uint8).reshape(grid, grid, 3).astype(np.int64)
    at = np.arange(side) * (grid - 1) * 256 // max(side - 1, 1)
    low, part = at >> 8, (at & 255)[:, None]
    high = np.minimum(low + 1, grid - 1)
    rows = colours[low] * (256 - part[..., None]) + colours[high] * part[..., None]
    both = rows[:, low] * (256 - part) + rows[:, high] * part
    found: Photos = (both >> 16).astype(np.uint8)
    return found
