"""Batches of photos, which threads decode while the network processes the previous batches."""

from __future__ import annotations

from typing import Unpack

import torch

from trainer.config import AugmentConfig
from trainer.data.augment import augment, draw
from trainer.data.dataset import PhotoSet
from trainer.data.loader import BaseLoader, Inputs, LoaderOptions
from trainer.data.sampler import Shard


class PhotoLoader(BaseLoader):
    """Photos decoded and, with `augment`, changed at random; uint8 (batch, size, size, 3).

    With `deferred`, the augmentation is only drawn here, and applied in the training step: a GPU does it faster.
    """

    features = False

    def __init__(
        self,
        photos: PhotoSet,
        batch_size: int,
        *,
        augment: AugmentConfig | None,
        deferred: bool = False,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(photos, batch_size, **options)
        self._set = photos
        self._augment = augment
        self._deferred = deferred

    def inputs(self, shard: Shard) -> Inputs:
        pixels = torch.from_numpy(self._set.pixels(shard.positions.tolist()))
        if self._augment is None:
            return Inputs(pixels)
        changes = draw(shard.photos, self._augment, shard.random)[shard.within]
        return Inputs(pixels, changes) if self._deferred else Inputs(augment(pixels, changes))
