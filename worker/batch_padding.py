"""The few batch sizes that a GPU sees: a smaller batch is padded, a larger one is cut.

On CUDA each new shape has convolutions planned and memory laid out anew, in the midst of counting. On a CPU there is
nothing of the kind, and each row of padding costs as much as a photo: there, every size is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_STEP = 4
"""Each bucket is so many times the one before: 1, 4, 16, 64. A GPU is far from full at the sizes that this wastes."""

Pixels = npt.NDArray[np.uint8]


def buckets(largest: int) -> tuple[int, ...]:
    """Batch sizes from 1 to `largest`, ascending."""
    sizes = []
    size = 1
    while size < largest:
        sizes.append(size)
        size *= _STEP
    return (*sizes, largest)


def in_buckets(photos: Pixels, sizes: tuple[int, ...]) -> Iterator[tuple[Pixels, int]]:
    """`photos`, uint8 (n, size, size, 3), in batches of the given sizes, in order; beside each, how many are photos.

    The rest of a batch is black.
    """
    for start in range(0, len(photos), sizes[-1]):
        batch = piece = photos[start : start + sizes[-1]]
        wanted = next(size for size in sizes if size >= len(piece))
        if wanted > len(piece):
            batch = np.zeros((wanted, *photos.shape[1:]), np.uint8)
            batch[: len(piece)] = piece
        yield batch, len(piece)
