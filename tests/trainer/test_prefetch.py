"""Prefetching: batches stay unchanged and in order, and the next copy starts early."""

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

    assert all(
        prefetched is original for prefetched, original in zip(prefetch(batches, "cpu", clock), batches, strict=True)
    )
    assert set(stages) == {Stage.WAIT}


def test_the_next_copy_starts_before_a_batch_is_yielded() -> None:
    events: list[str] = []

    def say(event: str, about: Batch) -> Batch:
        events.append(f"{event} {int(about.inputs[0, 0, 0, 0])}")
        return about

    def send(sent: Batch) -> Callable[[], Batch]:
        say("send", sent)
        return lambda: say("arrived", sent)

    for result in copy_ahead([batch(number) for number in range(3)], send):
        say("work", result)
    assert events == [
        "send 0", "send 1", "arrived 0", "work 0", "send 2", "arrived 1", "work 1", "arrived 2", "work 2"
    ]  # fmt: skip
    assert list(copy_ahead([], send)) == []


def test_all_tensors_are_moved_except_step_quantities() -> None:
    sent = batch(1)
    result = map_tensors(sent, lambda each: each.to("meta"))
    assert sent.augment_params is not None
    assert result.augment_params is not None
    assert result.augment_params.sharpness is not None
    tensors = [result.inputs, result.quantities, result.augment_params.affine, result.augment_params.brightness]
    tensors += [result.augment_params.contrast, result.augment_params.sharpness]
    assert [each.device.type for each in tensors] == ["meta"] * 6
    assert result.step_quantities is sent.step_quantities
    assert result.photos == 3


@needs_gpu
def test_batches_are_unchanged_on_a_gpu() -> None:
    """With work that takes longer than a copy, no batch may be overwritten while it is in use."""
    batches = [batch(number, photos=64) for number in range(40)]
    sums = []
    for result in prefetch(batches, "cuda"):
        assert result.inputs.is_cuda
        assert result.augment_params is not None
        assert result.augment_params.affine.is_cuda
        torch.cuda._sleep(2_000_000)
        sums.append(result.inputs.sum())
    assert [int(each) for each in sums] == [int(each.inputs.sum()) for each in batches]
