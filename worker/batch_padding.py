"""The few batch sizes that a GPU sees: a smaller batch is padded, a larger one is split.

On CUDA, each new shape delays counting, while convolutions are planned and memory is allocated. A CPU has no such
cost, and each row of padding takes as long as a photo, so there a batch is never padded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_BUCKET_FACTOR = 4
"""Factor from one bucket to the next: 1, 4, 16, 64. Padding costs little: batches this small do not fill a GPU."""

Pixels = npt.NDArray[np.uint8]


def bucket_sizes(max_size: int) -> tuple[int, ...]:
    """Return the batch sizes to use, ascending: the powers of _BUCKET_FACTOR below `max_size`, then `max_size`."""
    sizes = []
    size = 1
    while size < max_size:
        sizes.append(size)
        size *= _BUCKET_FACTOR
    return (*sizes, max_size)


def split_into_buckets(photos: Pixels, sizes: tuple[int, ...]) -> Iterator[tuple[Pixels, int]]:
    """Split `photos`, uint8 (n, size, size, 3), into batches of the given sizes, in order.

    Yields each batch with its number of photos; the rest of the batch is black.
    """
    for start in range(0, len(photos), sizes[-1]):
        batch = chunk = photos[start : start + sizes[-1]]
        bucket = next(size for size in sizes if size >= len(chunk))
        if bucket > len(chunk):
            batch = np.zeros((bucket, *photos.shape[1:]), np.uint8)
            batch[: len(chunk)] = chunk
        yield batch, len(chunk)
