"""What a training step consists of, and what times it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import TypeVar

import torch

Item = TypeVar("Item")


class Stage(StrEnum):
    """Parts of a step, in their order. Together they are all of it."""

    WAIT = "waiting for data"
    TRANSFER = "transfer to the device"
    AUGMENT = "augmentation on the device"
    FORWARD = "forward"
    BACKWARD = "backward"
    STEP = "optimiser step"


Clock = Callable[[Stage], AbstractContextManager[None]]
"""Wraps each stage as it runs."""


def untimed(_: Stage) -> AbstractContextManager[None]:
    """The clock of ordinary training: none."""
    return nullcontext()


def waited(items: Iterable[Item], clock: Clock) -> Iterator[Item]:
    """`items` as they are; the clock sees the wait for each."""
    source = iter(items)
    end = object()
    while True:
        with clock(Stage.WAIT):
            item = next(source, end)
        if item is end:
            return
        yield item  # type: ignore[misc]


class Stopwatch:
    """Seconds spent in each stage, all steps together.

    A GPU works on what it was given while the CPU goes on: each stage waits until it is done, so that its time is its
    own. That costs the overlap of stages; how long a step really takes is measured without a stopwatch.
    """

    def __init__(self, device: str) -> None:
        self.seconds = dict.fromkeys(Stage, 0.0)
        self._cuda = torch.device(device).type == "cuda"

    @contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.wait()
        self.seconds[stage] += time.perf_counter() - began

    @contextmanager
    def waits_only(self, stage: Stage) -> Iterator[None]:
        """As a clock: sees only the waits for data, and so does not hold up a GPU."""
        began = time.perf_counter()
        yield
        if stage is Stage.WAIT:
            self.seconds[stage] += time.perf_counter() - began

    def wait(self) -> None:
        """Until the GPU has done all that it was given."""
        if self._cuda:
            torch.cuda.synchronize()
