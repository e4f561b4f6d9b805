"""Prefetching: batches arrive unchanged and in order, and the next copy is already under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from trainer.config import AugmentConfig
from trainer.data.augment import sample_params
from trainer.data.loader import Batch
from trainer.data.sampler import seeded_generator
from trainer.train.prefetch import copy_ahead, map_tensors, prefetch
from trainer.train.step_timer import Stage

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def batch(number: int, photos: int = 3) -> Batch:
    pixels = torch.full((photos, 8, 8, 3), number, dtype=torch.uint8)
    quantities, random = torch.arange(photos), seeded_generator(number)
    return Batch(pixels, quantities, quantities, photos, sample_params(photos, AugmentConfig(sharpness=0.5), random))


def test_batches_are_unchanged_on_a_cpu() -> None:
    batches = [batch(number) for number in range(3)]
    stages: list[Stage] = []

    @contextmanager
    def clock(stage: Stage) -> Iterator[None]:
        stages.append(stage)
        yield

    assert all(one is two for one, two in zip(prefetch(batches, "cpu", clock), batches, strict=True))
    assert set(stages) == {Stage.WAIT}


def test_the_next_copy_starts_before_a_batch_is_yielded() -> None:
    said: list[str] = []

    def say(what: str, about: Batch) -> Batch:
        said.append(f"{what} {int(about.inputs[0, 0, 0, 0])}")
        return about

    def send(sent: Batch) -> Callable[[], Batch]:
        say("send", sent)
        return lambda: say("arrived", sent)

    for found in copy_ahead([batch(number) for number in range(3)], send):
        say("work", found)
    assert said == [
        "send 0", "send 1", "arrived 0", "work 0", "send 2", "arrived 1", "work 1", "arrived 2", "work 2"
    ]  # fmt: skip
    assert list(copy_ahead([], send)) == []


def test_all_tensors_are_moved_except_step_quantities() -> None:
    sent = batch(1)
    found = map_tensors(sent, lambda each: each.to("meta"))
    assert sent.augment_params is not None
    assert found.augment_params is not None
    assert found.augment_params.sharpness is not None
    tensors = [found.inputs, found.quantities, found.augment_params.affine, found.augment_params.brightness]
    tensors += [found.augment_params.contrast, found.augment_params.sharpness]
    assert [each.device.type for each in tensors] == ["meta"] * 6
    assert found.step_quantities is sent.step_quantities
    assert found.photos == 3


@needs_gpu
def test_batches_are_unchanged_on_a_gpu() -> None:
    """Many batches, and work on each that takes longer than a copy: none may be overwritten while it is worked on."""
    batches = [batch(number, photos=64) for number in range(40)]
    sums = []
    for found in prefetch(batches, "cuda"):
        assert found.inputs.is_cuda
        assert found.augment_params is not None
        assert found.augment_params.affine.is_cuda
        torch.cuda._sleep(2_000_000)
        sums.append(found.inputs.sum())
    assert [int(each) for each in sums] == [int(each.inputs.sum()) for each in batches]
