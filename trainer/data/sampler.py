"""The order of photos in an epoch: optimisation steps, their micro-batches, and a shard of each for every process."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.distributed.context import SINGLE_PROCESS, DistributedContext

MIN_BATCH_SIZE = 2
"""Minimum number of photos in a batch: batch norm is undefined for a single photo."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """Divides the photos of an epoch evenly into steps, each step into micro-batches, and each of these into shards.

    All photos are used. Sizes differ by at most one photo and are at least MIN_BATCH_SIZE if there are enough photos;
    for this, a batch may have up to four photos even if `batch_size` is two or three. The photos of a step depend only
    on the maximum number of photos per step, not on how a step is divided into micro-batches and shards.
    """

    photos: int
    steps: int
    accumulation_steps: int
    context: DistributedContext

    @classmethod
    def for_batch_size(
        cls, photos: int, batch_size: int, accumulation_steps: int = 1, context: DistributedContext = SINGLE_PROCESS
    ) -> Sampler:
        """Plan the fewest steps, of up to `accumulation_steps` batches of up to `batch_size` photos per process."""
        world_size = context.world_size
        steps = math.ceil(photos / (batch_size * accumulation_steps * world_size))
        accumulation_steps = math.ceil(photos / max(steps * batch_size * world_size, 1))
        if photos < MIN_BATCH_SIZE * steps * accumulation_steps * world_size:  # fewer micro-batches, or fewer steps
            accumulation_steps = max(photos // (MIN_BATCH_SIZE * steps * world_size), 1)
            steps = max(photos // (MIN_BATCH_SIZE * accumulation_steps * world_size), 1)
        return cls(photos, steps, accumulation_steps, context)

    def step(self, index: int) -> slice:
        """Return the positions of all photos of the step that contains micro-batch `index`."""
        return self._slice(index // self.accumulation_steps, self.steps)

    def micro_batch(self, index: int) -> slice:
        """Return the positions of the photos of micro-batch `index` in all processes."""
        return self._slice(index, self.steps * self.accumulation_steps)

    def shard(self, index: int) -> slice:
        """Return the positions of this process's photos of micro-batch `index`."""
        world_size = self.context.world_size
        return self._slice(index * world_size + self.context.rank, self.steps * self.accumulation_steps * world_size)

    def _slice(self, index: int, parts: int) -> slice:
        """Return part `index` of `parts`. Boundaries are rounded down, so that finer divisions share them."""
        return slice(index * self.photos // parts, (index + 1) * self.photos // parts)


@dataclass(frozen=True, slots=True)
class Shard:
    """The photos of a micro-batch that one process reads."""

    positions: Tensor
    """Positions in the photo set, int64 (batch,)."""
    random: torch.Generator
    """Generator of the whole step. Every process draws for every photo of the step, so that all draw the same."""
    step_photos: int
    """Number of photos of the whole step."""
    positions_in_step: Tensor
    """Positions of this shard's photos within the step, int64 (batch,)."""


def seeded_generator(*seeds: int) -> torch.Generator:
    """Return a random number generator that depends only on `seeds` (such as a seed, an epoch and a step)."""
    words = np.random.SeedSequence(seeds).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
