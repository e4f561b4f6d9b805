"""The shape of an epoch: in which order photos come, and how they are cut into steps, passes and shares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from trainer.data.augment import Changes
from trainer.data.dataset import PhotoSet
from trainer.data.read_ahead import AHEAD, read_ahead
from trainer.distributed.context import ALONE, Ranks

FEWEST = 2
"""Photos of a batch: the batch norm of a single one is undefined."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What the network gets in one pass of one process, and the number of items in each photo, int64 (rows,).

    Of a photo that shows n items or more the number is ~n (see `trainer.models.targets`).
    """

    inputs: Tensor
    quantities: Tensor
    step: Tensor
    """Items in each photo of the whole step, of all its passes and processes, int64: what its loss is a mean of."""
    photos: int
    """Of this pass, in all processes."""
    changes: Changes | None = None
    """How `inputs` are to be changed where the network computes; none if they are as they should be."""
    teacher_probabilities: Tensor | None = None
    """The teachers' probabilities, float32 (batch, quantities), if there are teachers."""


class Inputs(NamedTuple):
    """What there is of photos at some positions: see `Batch`."""

    rows: Tensor
    changes: Changes | None = None


class Batches(Protocol):
    """Photos, or features of photos, for one epoch after another."""

    features: bool
    """True: `inputs` are what `Counter.features` returned. False: uint8 photos (batch, h, w, 3)."""
    quantities: Tensor
    """Items in each photo, in the order of the photo set, int64 (photos,)."""

    def __len__(self) -> int:
        """Batches per epoch."""

    @property
    def photos(self) -> int:
        """Photos per epoch, in all processes."""

    @property
    def passes(self) -> int:
        """Batches per step."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """All batches of an epoch. The same number gives the same batches, so that a resumed run is the same run."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Photos of an epoch, evenly into steps, each evenly into passes, each evenly into the processes' shares.

    Sizes differ by one photo at most and are not below FEWEST, wherever there are as many: none is left out, and no
    rest of one photo upsets a batch norm. For that, batches of two or three may have up to four. Which photos a
    step holds depends only on how many it may hold, not on how they are spread over passes and processes.
    """

    photos: int
    steps: int
    passes: int
    ranks: Ranks

    @classmethod
    def of(cls, photos: int, batch_size: int, passes: int = 1, ranks: Ranks = ALONE) -> Cut:
        """As few steps of up to `passes` batches of up to `batch_size` photos in each process as hold all photos."""
        steps = math.ceil(photos / (batch_size * passes * ranks.size))
        passes = math.ceil(photos / max(steps * batch_size * ranks.size, 1))
        if photos < FEWEST * steps * passes * ranks.size:  # fewer passes, and if need be fewer steps
            passes = max(photos // (FEWEST * steps * ranks.size), 1)
            steps = max(photos // (FEWEST * passes * ranks.size), 1)
        return cls(photos, steps, passes, ranks)

    def step(self, index: int) -> slice:
        """Places of all photos of the step that the batch `index` belongs to."""
        number = index // self.passes
        return slice(self._start(number, self.steps), self._start(number + 1, self.steps))

    def together(self, index: int) -> slice:
        """Places of the photos of batch `index`, in all processes."""
        return slice(*(self._start(each, self.steps * self.passes) for each in (index, index + 1)))

    def own(self, index: int) -> slice:
        """Places of the photos of batch `index`, in this process."""
        part, parts = index * self.ranks.size + self.ranks.rank, self.steps * self.passes * self.ranks.size
        return slice(self._start(part, parts), self._start(part + 1, parts))

    def _start(self, part: int, parts: int) -> int:
        return part * self.photos // parts  # rounded down, so that finer cuts go through the same places


@dataclass(frozen=True, slots=True)
class Part:
    """What one process reads for one pass."""

    positions: Tensor
    """In the photo set, int64 (batch,)."""
    random: torch.Generator
    """Of the whole step: each process draws for every photo of it and takes its own, so that all draw alike."""
    photos: int
    """Of the whole step."""
    within: Tensor
    """Places of `positions` among them, int64 (rows,)."""


class Epochs:
    """What all batches have in common. Derived classes say what the network gets of the photos at some positions."""

    features: bool

    def __init__(
        self,
        photos: PhotoSet,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        threads: int,
        passes: int = 1,
        ranks: Ranks = ALONE,
        teacher_probabilities: Tensor | None = None,
    ) -> None:
        """`teacher_probabilities` are the teachers', float32 (photos, quantities), if there are teachers."""
        self.quantities = torch.from_numpy(photos.targets)
        self._cut = Cut.of(len(photos), batch_size, passes, ranks)
        self._seed = seed
        self._shuffle = shuffle
        self._threads = threads
        self._teacher_probabilities = teacher_probabilities

    def __len__(self) -> int:
        return self._cut.steps * self._cut.passes

    @property
    def photos(self) -> int:
        return self._cut.photos

    @property
    def passes(self) -> int:
        return self._cut.passes

    def epoch(self, number: int) -> Iterator[Batch]:
        order = self._order(number)
        ahead = max(AHEAD, self._threads)
        return read_ahead(lambda index: self._batch(number, index, order), range(len(self)), self._threads, ahead)

    def inputs(self, part: Part) -> Inputs:
        """What the network gets of the photos of `part`."""
        raise NotImplementedError

    def _order(self, epoch: int) -> Tensor:
        if self._shuffle:
            return torch.randperm(self.photos, generator=generator(self._seed, epoch))
        return torch.arange(self.photos)

    def _batch(self, epoch: int, index: int, order: Tensor) -> Batch:
        step, together, own = self._cut.step(index), self._cut.together(index), self._cut.own(index)
        photos, random = order[step], generator(self._seed, epoch, index // self.passes)
        within = torch.arange(own.start - step.start, own.stop - step.start)
        positions = order[own]
        inputs, changes = self.inputs(Part(positions, random, len(photos), within))
        return Batch(
            inputs,
            self.quantities[positions],
            self.quantities[photos],
            together.stop - together.start,
            changes,
            None if self._teacher_probabilities is None else self._teacher_probabilities[positions],
        )


def generator(*parts: int) -> torch.Generator:
    """Random numbers that depend on `parts` only (a seed, an epoch, a step)."""
    words = np.random.SeedSequence(parts).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
