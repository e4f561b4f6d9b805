"""Timing of the stages of a training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import TypeVar

import torch

Item = TypeVar("Item")


class Stage(StrEnum):
    """The stages of a step, in order. Together they are the whole step."""

    WAIT = "waiting for data"
    TRANSFER = "transfer to the device"
    AUGMENT = "augmentation on the device"
    FORWARD = "forward"
    BACKWARD = "backward"
    STEP = "optimiser step"


Clock = Callable[[Stage], AbstractContextManager[None]]
"""Returns a context that measures a stage."""


def untimed(_: Stage) -> AbstractContextManager[None]:
    """A clock that measures nothing, for ordinary training."""
    return nullcontext()


def time_waits(items: Iterable[Item], clock: Clock) -> Iterator[Item]:
    """Yield `items`; the clock measures the wait for each of them."""
    source = iter(items)
    end = object()
    while True:
        with clock(Stage.WAIT):
            item = next(source, end)
        if item is end:
            return
        yield item  # type: ignore[misc]


class Stopwatch:
    """Measures the seconds spent in each stage, over all steps.

    A GPU computes asynchronously, so each stage ends with a wait for the GPU. This prevents stages from overlapping, so
    the duration of whole steps must be measured without a stopwatch.
    """

    def __init__(self, device: str) -> None:
        self.seconds = dict.fromkeys(Stage, 0.0)
        self._cuda = torch.device(device).type == "cuda"

    @contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.wait()
        self.seconds[stage] += time.perf_counter() - start

    @contextmanager
    def waits_only(self, stage: Stage) -> Iterator[None]:
        """A clock that measures only the waits for data, and does not wait for a GPU."""
        start = time.perf_counter()
        yield
        if stage is Stage.WAIT:
            self.seconds[stage] += time.perf_counter() - start

    def wait(self) -> None:
        """Wait until the GPU has finished its work."""
        if self._cuda:
            torch.cuda.synchronize()
