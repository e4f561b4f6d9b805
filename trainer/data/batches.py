"""Batches for the training loop, read ahead by threads while the network works on the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from binwatch.image import SIZE
from trainer.config import AugmentConfig
from trainer.data.augment import augment
from trainer.data.dataset import PhotoSet

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 3
"""Batches that are read before they are asked for."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What the network gets, and the number of items in each photo, int64 (batch,)."""

    inputs: Tensor
    quantities: Tensor


class Batches(Protocol):
    """Photos, or features of photos, for one epoch after another."""

    features: bool
    """True: `inputs` are what `Counter.features` returned. False: uint8 photos (batch, h, w, 3)."""

    def __len__(self) -> int:
        """Batches per epoch."""

    @property
    def photos(self) -> int:
        """Photos per epoch."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """All batches of an epoch. The same number gives the same batches, so that a resumed run is the same run."""


def order(photos: int, seed: int, epoch: int, batch_size: int) -> list[Tensor]:
    """Positions of an epoch's photos, shuffled, in whole batches (a rest of one photo would upset a batch norm)."""
    mixed = torch.randperm(photos, generator=generator(seed, epoch))
    whole = max(photos // batch_size, 1)
    return list(torch.split(mixed[: whole * batch_size], batch_size))


def in_order(photos: int, batch_size: int) -> list[Tensor]:
    """All positions, in batches."""
    return list(torch.split(torch.arange(photos), batch_size))


def generator(*parts: int) -> torch.Generator:
    """Random numbers that depend on `parts` only (a seed, an epoch, a batch)."""
    words = np.random.SeedSequence(parts).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def read_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int = AHEAD
) -> Iterator[Result]:
    """`work` of each item, in order, with up to `ahead` results prepared in advance."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class PhotoBatches:
    """Photos decoded and, with `augment`, changed at random; uint8 (batch, size, size, 3)."""

    features = False

    def __init__(
        self,
        photos: PhotoSet,
        batch_size: int,
        *,
        seed: int,
        augment: AugmentConfig | None,
        shuffle: bool,
        threads: int,
    ) -> None:
        self._set = photos
        self._quantities = torch.from_numpy(photos.quantities)
        self._batch_size = batch_size
        self._seed = seed
        self._augment = augment
        self._shuffle = shuffle
        self._threads = threads

    def __len__(self) -> int:
        return len(self._order(0))

    @property
    def photos(self) -> int:
        return sum(len(positions) for positions in self._order(0))

    def epoch(self, number: int) -> Iterator[Batch]:
        jobs = list(enumerate(self._order(number)))
        return read_ahead(lambda job: self._batch(number, *job), jobs, self._threads)

    def _order(self, epoch: int) -> list[Tensor]:
        if self._shuffle:
            return order(len(self._set), self._seed, epoch, self._batch_size)
        return in_order(len(self._set), self._batch_size)

    def _batch(self, epoch: int, index: int, positions: Tensor) -> Batch:
        pixels = torch.from_numpy(self._set.pixels(positions.tolist(), SIZE))
        if self._augment:
            pixels = augment(pixels, self._augment, generator(self._seed, epoch, index))
        return Batch(pixels, self._quantities[positions])
