"""The order of photos in an epoch: steps, their micro-batches, and a shard of each for every process."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.distributed.context import SINGLE_PROCESS, DistributedContext

FEWEST = 2
"""Smallest number of photos in a batch: batch norm is undefined for a single photo."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """Divides the photos of an epoch evenly into steps, each into micro-batches, each into a shard per process.

    All photos are used. Sizes differ by one photo at most and are at least FEWEST, if there are enough photos; for
    this, a batch size of two or three may result in up to four photos. The photos of a step depend only on the largest
    number of photos in a step, not on how they are divided into micro-batches and shards.
    """

    photos: int
    steps: int
    accumulation_steps: int
    context: DistributedContext

    @classmethod
    def of(
        cls, photos: int, batch_size: int, accumulation_steps: int = 1, context: DistributedContext = SINGLE_PROCESS
    ) -> Sampler:
        """The fewest steps possible, each of up to `accumulation_steps` batches of up to `batch_size` per process."""
        size = context.world_size
        steps = math.ceil(photos / (batch_size * accumulation_steps * size))
        accumulation_steps = math.ceil(photos / max(steps * batch_size * size, 1))
        if photos < FEWEST * steps * accumulation_steps * size:  # fewer micro-batches, and if need be fewer steps
            accumulation_steps = max(photos // (FEWEST * steps * size), 1)
            steps = max(photos // (FEWEST * accumulation_steps * size), 1)
        return cls(photos, steps, accumulation_steps, context)

    def step(self, index: int) -> slice:
        """Positions of all photos of the step of micro-batch `index`."""
        number = index // self.accumulation_steps
        return slice(self._start(number, self.steps), self._start(number + 1, self.steps))

    def micro_batch(self, index: int) -> slice:
        """Positions of the photos of micro-batch `index`, in all processes."""
        return slice(*(self._start(each, self.steps * self.accumulation_steps) for each in (index, index + 1)))

    def shard(self, index: int) -> slice:
        """Positions of the photos of micro-batch `index` that this process works on."""
        size = self.context.world_size
        part, parts = index * size + self.context.rank, self.steps * self.accumulation_steps * size
        return slice(self._start(part, parts), self._start(part + 1, parts))

    def _start(self, part: int, parts: int) -> int:
        return part * self.photos // parts  # rounded down, so that finer divisions have the same boundaries


@dataclass(frozen=True, slots=True)
class Shard:
    """The photos of a micro-batch that one process reads."""

    positions: Tensor
    """Positions in the photo set, int64 (batch,)."""
    random: torch.Generator
    """Generator of the whole step. Each process draws for every photo of the step, so that all draw the same."""
    photos: int
    """Number of photos of the whole step."""
    within: Tensor
    """Positions of this shard's photos within the step, int64 (rows,)."""


def generator(*parts: int) -> torch.Generator:
    """Random numbers that depend on `parts` only (a seed, an epoch, a step)."""
    words = np.random.SeedSequence(parts).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
