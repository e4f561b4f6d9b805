"""Batches of photos, decoded by threads while the network processes the previous batches."""

from __future__ import annotations

from typing import Unpack

import torch

from trainer.config import AugmentConfig
from trainer.data.augment import augment, sample_params
from trainer.data.dataset import PhotoSet
from trainer.data.loader import BaseLoader, Inputs, LoaderOptions
from trainer.data.sampler import Shard


class PhotoLoader(BaseLoader):
    """Loads decoded and, with `augment`, randomly augmented photos, uint8 (batch, size, size, 3).

    With `deferred`, only the augmentation's parameters are drawn here, and the training step applies them: a GPU does
    that faster.
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
        self._photo_set = photos
        self._augment = augment
        self._deferred = deferred

    def inputs(self, shard: Shard) -> Inputs:
        pixels = torch.from_numpy(self._photo_set.pixels(shard.positions.tolist()))
        if self._augment is None:
            return Inputs(pixels)
        params = sample_params(shard.step_photos, self._augment, shard.random)[shard.positions_in_step]
        return Inputs(pixels, params) if self._deferred else Inputs(augment(pixels, params))
