"""Batches of one epoch after another, read ahead by threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, NotRequired, Protocol, TypedDict

import torch
from torch import Tensor

from trainer.data.augment import AugmentParams
from trainer.data.dataset import PhotoSet
from trainer.data.read_ahead import MIN_READ_AHEAD, read_ahead
from trainer.data.sampler import Sampler, Shard, seeded_generator
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext


@dataclass(frozen=True, slots=True)
class Batch:
    """One process's shard of a micro-batch: inputs, and the number of items in each photo, int64 (batch,).

    A photo that shows n items or more has the number ~n (see `trainer.models.targets`).
    """

    inputs: Tensor
    quantities: Tensor
    step_quantities: Tensor
    """Items in each photo of the whole step, of all micro-batches and processes, int64. The loss is the mean over these
    photos."""
    photos: int
    """Number of photos of this micro-batch in all processes."""
    augment_params: AugmentParams | None = None
    """Augmentation that the training step must apply to `inputs`, or None."""
    teacher_probabilities: Tensor | None = None
    """The teachers' probabilities, float32 (batch, quantities), or None without teachers."""


class Inputs(NamedTuple):
    """Inputs of the network, and the augmentation that the training step must apply to them (see `Batch`)."""

    inputs: Tensor
    augment_params: AugmentParams | None = None


class Loader(Protocol):
    """Photos, or features of photos, for one epoch after another."""

    features: bool
    """True: inputs are output of `Counter.features`. False: inputs are uint8 photos (batch, h, w, 3)."""
    quantities: Tensor
    """Items in each photo, in the order of the photo set, int64 (photos,)."""

    def __len__(self) -> int:
        """Return the number of batches per epoch."""

    @property
    def photos(self) -> int:
        """Photos per epoch, in all processes."""

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per step."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch. They depend only on its number, so a resumed run sees the same batches."""


class LoaderOptions(TypedDict):
    """Keyword arguments of all loaders."""

    seed: int
    shuffle: bool
    threads: int
    accumulation_steps: NotRequired[int]
    context: NotRequired[DistributedContext]
    teacher_probabilities: NotRequired[Tensor | None]


class BaseLoader:
    """The order of photos, their batches and their targets. Subclasses load the network's inputs."""

    features: bool

    def __init__(
        self,
        photos: PhotoSet,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        threads: int,
        accumulation_steps: int = 1,
        context: DistributedContext = SINGLE_PROCESS,
        teacher_probabilities: Tensor | None = None,
    ) -> None:
        """`teacher_probabilities` are float32 (photos, quantities), or None without teachers."""
        self.quantities = torch.from_numpy(photos.targets)
        self._sampler = Sampler.for_batch_size(len(photos), batch_size, accumulation_steps, context)
        self._seed = seed
        self._shuffle = shuffle
        self._threads = threads
        self._teacher_probabilities = teacher_probabilities

    def __len__(self) -> int:
        return self._sampler.steps * self._sampler.accumulation_steps

    @property
    def photos(self) -> int:
        return self._sampler.photos

    @property
    def accumulation_steps(self) -> int:
        return self._sampler.accumulation_steps

    def epoch(self, epoch: int) -> Iterator[Batch]:
        order = torch.arange(self.photos)
        if self._shuffle:
            order = torch.randperm(self.photos, generator=seeded_generator(self._seed, epoch))
        ahead = max(MIN_READ_AHEAD, self._threads)
        return read_ahead(lambda index: self._batch(epoch, index, order), range(len(self)), self._threads, ahead)

    def inputs(self, shard: Shard) -> Inputs:
        """Load the network's inputs for the photos of a shard."""
        raise NotImplementedError

    def _batch(self, epoch: int, index: int, order: Tensor) -> Batch:
        sampler = self._sampler
        step, micro_batch, shard = sampler.step(index), sampler.micro_batch(index), sampler.shard(index)
        random = seeded_generator(self._seed, epoch, index // self.accumulation_steps)
        positions, step_positions = order[shard], order[step]
        positions_in_step = torch.arange(shard.start - step.start, shard.stop - step.start)
        inputs, augment_params = self.inputs(Shard(positions, random, len(step_positions), positions_in_step))
        return Batch(
            inputs,
            self.quantities[positions],
            self.quantities[step_positions],
            micro_batch.stop - micro_batch.start,
            augment_params,
            None if self._teacher_probabilities is None else self._teacher_probabilities[positions],
        )
