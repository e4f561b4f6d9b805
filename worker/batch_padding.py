"""The few batch sizes that a GPU sees: a smaller batch is padded, a larger one is cut.

On CUDA, each new shape delays counting: convolutions are planned and memory is allocated for it. A CPU has no such
cost, and each row of padding takes as long as a photo, so there a batch is never padded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_STEP = 4
"""Factor from one bucket to the next: 1, 4, 16, 64. Padding costs little: batches this small do not fill a GPU."""

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
    """Split `photos`, uint8 (n, size, size, 3), into batches of the given sizes, in order.

    Gives each batch with its number of photos; the rest of the batch is black.
    """
    for start in range(0, len(photos), sizes[-1]):
        batch = piece = photos[start : start + sizes[-1]]
        wanted = next(size for size in sizes if size >= len(piece))
        if wanted > len(piece):
            batch = np.zeros((wanted, *photos.shape[1:]), np.uint8)
            batch[: len(piece)] = piece
        yield batch, len(piece)
