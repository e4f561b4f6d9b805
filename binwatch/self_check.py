"""Whether a loaded model answers as it did when it was exported: on made-up photos whose answers its card holds.

A file with the right SHA-256 can still be computed wrongly: by a CPU whose int8 products saturate, by a new release of
ONNX Runtime, by a GPU. Counts would then be off by a little everywhere, which looks like missing stock.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from binwatch.bundle import SelfCheck

GRIDS = (2, 4, 8, 16)
"""Colours along the side of each photo. What is between them is interpolated: from smooth to speckled."""
PROBABILITY = 0.03
"""How far a probability may be off. The starter model's are off by 0.007 if float arithmetic takes another order (ONNX
Runtime without its optimisations), by 0.19 with saturation (Haswell)."""
EMBEDDING = 0.08
"""How far an embedding may be off, as a share of its length. Likewise: 0.02, and 0.34."""
_DIGITS = 5

Photos = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]


def photos(side: int) -> Photos:
    """The photos of the check, uint8 (n, side, side, 3): the same on every machine and with every release of NumPy."""
    return np.stack([_photo(grid, side) for grid in GRIDS])


def answers(probabilities: Floats, embeddings: Floats) -> SelfCheck:
    """What a card holds: the answers to `photos`, shapes (n, quantities) and (n, embedding_size)."""
    return SelfCheck(
        probabilities=[[round(float(value), _DIGITS) for value in row] for row in probabilities],
        embeddings=[[float(f"{value:.{_DIGITS}g}") for value in row] for row in embeddings],
    )


def difference(expected: SelfCheck, probabilities: Floats, embeddings: Floats) -> str | None:
    """How the answers to `photos` differ from the card's, in words; None if they are near enough."""
    wanted = np.array(expected.probabilities), np.array(expected.embeddings)
    for name, card, found in zip(("probabilities", "embeddings"), wanted, (probabilities, embeddings), strict=True):
        if card.shape != found.shape:
            return f"it gives {name} of shape {found.shape}, the card has {card.shape}"
    most = float(np.abs(probabilities - wanted[0]).max())
    lengths = np.linalg.norm(wanted[1], axis=1)
    share = float((np.linalg.norm(embeddings - wanted[1], axis=1) / np.maximum(lengths, 1e-6)).max())
    if most <= PROBABILITY and share <= EMBEDDING:  # NaN is neither
        return None
    return (
        f"probabilities are up to {most:.2g} from the card's (at most {PROBABILITY:g} may be),"
        f" embeddings up to {share:.0%} (at most {EMBEDDING:.0%})"
    )


def _photo(grid: int, side: int) -> Photos:
    """`grid` × `grid` colours from a hash, interpolated in integers: floats may round differently elsewhere."""
    data = hashlib.shake_128(f"binwatch self-check {grid}".encode()).digest(grid * grid * 3)
    colours = np.frombuffer(data, np.uint8).reshape(grid, grid, 3).astype(np.int64)
    at = np.arange(side) * (grid - 1) * 256 // max(side - 1, 1)
    low, part = at >> 8, (at & 255)[:, None]
    high = np.minimum(low + 1, grid - 1)
    rows = colours[low] * (256 - part[..., None]) + colours[high] * part[..., None]
    both = rows[:, low] * (256 - part) + rows[:, high] * part
    found: Photos = (both >> 16).astype(np.uint8)
    return found
