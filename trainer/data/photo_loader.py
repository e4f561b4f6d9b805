"""Batches of photos, decoded by threads while the network works on the ones before."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.config import AugmentConfig
from trainer.data.augment import augment, draw
from trainer.data.dataset import PhotoSet
from trainer.data.loader import BaseLoader, Inputs
from trainer.data.sampler import Shard
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext


class PhotoLoader(BaseLoader):
    """Photos decoded and, with `augment`, changed at random; uint8 (batch, size, size, 3).

    With `later` the changes are only drawn, for whoever has the photos then (a GPU is quicker at it).
    """

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
        accumulation_steps: int = 1,
        context: DistributedContext = SINGLE_PROCESS,
        deferred: bool = False,
        teacher_probabilities: Tensor | None = None,
    ) -> None:
        super().__init__(
            photos,
            batch_size,
            seed=seed,
            shuffle=shuffle,
            threads=threads,
            accumulation_steps=accumulation_steps,
            context=context,
            teacher_probabilities=teacher_probabilities,
        )
        self._set = photos
        self._augment = augment
        self._deferred = deferred

    def inputs(self, shard: Shard) -> Inputs:
        pixels = torch.from_numpy(self._set.pixels(shard.positions.tolist()))
        if self._augment is None:
            return Inputs(pixels)
        changes = draw(shard.photos, self._augment, shard.random)[shard.within]
        return Inputs(pixels, changes) if self._deferred else Inputs(augment(pixels, changes))
