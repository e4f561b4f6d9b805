"""Which photos come when: an epoch in steps, micro-batches and shards, one of each for every process."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.distributed.context import SINGLE_PROCESS, DistributedContext

FEWEST = 2
"""Photos of a batch: the batch norm of a single one is undefined."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """Divides the photos of an epoch evenly into steps, each into micro-batches, each into a shard per process.

    Sizes differ by one photo at most and are not below FEWEST, wherever there are as many: none is left out, and no
    rest of one photo upsets a batch norm. For that, batches of two or three may have up to four. Which photos a
    step holds depends only on how many it may hold, not on how they are spread over micro-batches and processes.
    """

    photos: int
    steps: int
    accumulation_steps: int
    context: DistributedContext

    @classmethod
    def of(
        cls, photos: int, batch_size: int, accumulation_steps: int = 1, context: DistributedContext = SINGLE_PROCESS
    ) -> Sampler:
        """As few steps as hold all photos, of up to `accumulation_steps` batches of up to `batch_size` per process."""
        size = context.world_size
        steps = math.ceil(photos / (batch_size * accumulation_steps * size))
        accumulation_steps = math.ceil(photos / max(steps * batch_size * size, 1))
        if photos < FEWEST * steps * accumulation_steps * size:  # fewer micro-batches, and if need be fewer steps
            accumulation_steps = max(photos // (FEWEST * steps * size), 1)
            steps = max(photos // (FEWEST * accumulation_steps * size), 1)
        return cls(photos, steps, accumulation_steps, context)

    def step(self, index: int) -> slice:
        """Places of all photos of the step that micro-batch `index` belongs to."""
        number = index // self.accumulation_steps
        return slice(self._start(number, self.steps), self._start(number + 1, self.steps))

    def micro_batch(self, index: int) -> slice:
        """Places of the photos of micro-batch `index`, in all processes."""
        return slice(*(self._start(each, self.steps * self.accumulation_steps) for each in (index, index + 1)))

    def shard(self, index: int) -> slice:
        """Places of the photos of micro-batch `index` that this process takes."""
        size = self.context.world_size
        part, parts = index * size + self.context.rank, self.steps * self.accumulation_steps * size
        return slice(self._start(part, parts), self._start(part + 1, parts))

    def _start(self, part: int, parts: int) -> int:
        return part * self.photos // parts  # rounded down, so that finer divisions go through the same places


@dataclass(frozen=True, slots=True)
class Shard:
    """What one process reads of a micro-batch."""

    positions: Tensor
    """In the photo set, int64 (batch,)."""
    random: torch.Generator
    """Of the whole step: each process draws for every photo of it and takes its own, so that all draw alike."""
    photos: int
    """Of the whole step."""
    within: Tensor
    """Places of `positions` among them, int64 (rows,)."""


def generator(*parts: int) -> torch.Generator:
    """Random numbers that depend on `parts` only (a seed, an epoch, a step)."""
    words = np.random.SeedSequence(parts).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
