"""Batches of one epoch after another, read ahead by threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, NotRequired, Protocol, TypedDict

import torch
from torch import Tensor

from trainer.data.augment import Changes
from trainer.data.dataset import PhotoSet
from trainer.data.read_ahead import AHEAD, read_ahead
from trainer.data.sampler import Sampler, Shard, generator
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext


@dataclass(frozen=True, slots=True)
class Batch:
    """One process's shard of a micro-batch: inputs, and the number of items in each photo, int64 (rows,).

    If a photo shows n items or more, the number is ~n (see `trainer.models.targets`).
    """

    inputs: Tensor
    quantities: Tensor
    step_quantities: Tensor
    """Items in each photo of the whole step, of all micro-batches and processes, int64. The loss is the mean over these
    photos."""
    photos: int
    """Number of photos of this micro-batch, in all processes."""
    changes: Changes | None = None
    """Augmentation that is still to be applied to `inputs`, on the device; None if there is none."""
    teacher_probabilities: Tensor | None = None
    """The teachers' probabilities, float32 (batch, quantities), if there are teachers."""


class Inputs(NamedTuple):
    """Inputs of the network, and the augmentation that is still to be applied: see `Batch`."""

    rows: Tensor
    changes: Changes | None = None


class Loader(Protocol):
    """Photos, or features of photos, for one epoch after another."""

    features: bool
    """True: `inputs` are output of `Counter.features`. False: uint8 photos (batch, h, w, 3)."""
    quantities: Tensor
    """Items in each photo, in the order of the photo set, int64 (photos,)."""

    def __len__(self) -> int:
        """Batches per epoch."""

    @property
    def photos(self) -> int:
        """Photos per epoch, in all processes."""

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per step."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """All batches of an epoch. They depend only on the number, so that a resumed run is the same run."""


class LoaderOptions(TypedDict):
    """Keyword arguments of all loaders."""

    seed: int
    shuffle: bool
    threads: int
    accumulation_steps: NotRequired[int]
    context: NotRequired[DistributedContext]
    teacher_probabilities: NotRequired[Tensor | None]


class BaseLoader:
    """The order of photos, their batches and their targets. Derived classes add `inputs` of the network."""

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
        """`teacher_probabilities` are the teachers', float32 (photos, quantities), if there are teachers."""
        self.quantities = torch.from_numpy(photos.targets)
        self._sampler = Sampler.of(len(photos), batch_size, accumulation_steps, context)
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

    def epoch(self, number: int) -> Iterator[Batch]:
        order = torch.arange(self.photos)
        if self._shuffle:
            order = torch.randperm(self.photos, generator=generator(self._seed, number))
        ahead = max(AHEAD, self._threads)
        return read_ahead(lambda index: self._batch(number, index, order), range(len(self)), self._threads, ahead)

    def inputs(self, shard: Shard) -> Inputs:
        """Inputs of the network for the photos of a shard."""
        raise NotImplementedError

    def _batch(self, epoch: int, index: int, order: Tensor) -> Batch:
        sampler = self._sampler
        step, micro_batch, shard = sampler.step(index), sampler.micro_batch(index), sampler.shard(index)
        photos, random = order[step], generator(self._seed, epoch, index // self.accumulation_steps)
        within = torch.arange(shard.start - step.start, shard.stop - step.start)
        positions = order[shard]
        inputs, changes = self.inputs(Shard(positions, random, len(photos), within))
        return Batch(
            inputs,
            self.quantities[positions],
            self.quantities[photos],
            micro_batch.stop - micro_batch.start,
            changes,
            None if self._teacher_probabilities is None else self._teacher_probabilities[positions],
        )
