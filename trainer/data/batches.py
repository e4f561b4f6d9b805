"""Batches of photos, decoded by threads while the network works on the ones before."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.config import AugmentConfig
from trainer.data.augment import augment, draw
from trainer.data.dataset import PhotoSet
from trainer.data.epochs import Epochs, Inputs, Part
from trainer.distributed.context import ALONE, Ranks


class PhotoBatches(Epochs):
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
        passes: int = 1,
        ranks: Ranks = ALONE,
        later: bool = False,
        teacher_probabilities: Tensor | None = None,
    ) -> None:
        super().__init__(
            photos,
            batch_size,
            seed=seed,
            shuffle=shuffle,
            threads=threads,
            passes=passes,
            ranks=ranks,
            teacher_probabilities=teacher_probabilities,
        )
        self._set = photos
        self._augment = augment
        self._later = later

    def inputs(self, part: Part) -> Inputs:
        pixels = torch.from_numpy(self._set.pixels(part.positions.tolist()))
        if self._augment is None:
            return Inputs(pixels)
        changes = draw(part.photos, self._augment, part.random)[part.within]
        return Inputs(pixels, changes) if self._later else Inputs(augment(pixels, changes))
