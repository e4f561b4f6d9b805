"""The order of photos in an epoch, and its division into steps, micro-batches and shards."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from tests.trainer.drawn import Data
from trainer.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig
from trainer.data.dataset import load_dataset
from trainer.data.loader import Batch
from trainer.data.photo_loader import PhotoLoader
from trainer.data.read_ahead import read_ahead
from trainer.data.sampler import Sampler, seeded_generator
from trainer.data.split import Split
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext
from trainer.models import build
from trainer.train.predict import predict_logits


def joined(parts: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(parts))


def places(cut: Sampler) -> list[list[int]]:
    return [list(range(cut.photos))[cut.shard(index)] for index in range(cut.steps * cut.accumulation_steps)]


@pytest.mark.parametrize(
    ("photos", "size", "sizes"),
    [(100, 32, [25, 25, 25, 25]), (132, 64, [44, 44, 44]), (129, 64, [43, 43, 43]), (5, 32, [5]), (65, 64, [32, 33])],
)
def test_batches_are_even_and_contain_each_photo_once(photos: int, size: int, sizes: list[int]) -> None:
    result = places(Sampler.for_batch_size(photos, size))
    assert [len(batch) for batch in result] == sizes
    assert joined(result) == list(range(photos))


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("accumulation_steps", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 4, 64])
def test_no_batch_has_a_single_photo(size: int, accumulation_steps: int, processes: int) -> None:
    """Batch norm is undefined for a single photo, and torch would raise."""
    for photos in range(2 * processes, 200):
        cuts = samplers(photos, size, accumulation_steps, processes)
        sizes = [len(batch) for cut in cuts for batch in places(cut)]
        assert (sum(sizes), min(sizes) >= 2, max(sizes) - min(sizes) <= 1) == (photos, True, True)
        assert max(sizes) <= max(size, 4)
        assert len({(cut.steps, cut.accumulation_steps) for cut in cuts}) == 1


def test_no_photos_give_no_batch() -> None:
    assert places(Sampler.for_batch_size(0, 8)) == []


@pytest.mark.parametrize(
    ("size", "accumulation_steps", "processes"), [(32, 1, 1), (8, 4, 1), (16, 1, 2), (4, 2, 4), (11, 1, 3)]
)
@pytest.mark.parametrize("photos", [131, 132, 1000, 33, 20])
def test_a_step_has_the_same_photos_for_any_number_of_shards(
    photos: int, size: int, accumulation_steps: int, processes: int
) -> None:
    cuts = samplers(photos, size, accumulation_steps, processes)
    steps: list[list[int]] = [[] for _ in range(cuts[0].steps)]
    for index in range(cuts[0].steps * cuts[0].accumulation_steps):
        micro_batch = [list(range(photos))[cut.shard(index)] for cut in cuts]
        assert max(map(len, micro_batch)) <= size
        assert max(map(len, micro_batch)) - min(map(len, micro_batch)) <= 1
        assert joined(micro_batch) == list(range(photos))[cuts[0].micro_batch(index)]
        steps[index // cuts[0].accumulation_steps] += joined(micro_batch)
    single_process = Sampler.for_batch_size(photos, size * accumulation_steps * processes)
    assert steps == places(single_process)
    assert steps == [
        list(range(photos))[cuts[0].step(index * cuts[0].accumulation_steps)] for index in range(cuts[0].steps)
    ]


def samplers(photos: int, size: int, accumulation_steps: int, processes: int) -> list[Sampler]:
    contexts = [DistributedContext(rank, processes) for rank in range(processes)]
    return [Sampler.for_batch_size(photos, size, accumulation_steps, context) for context in contexts]


def epoch(
    data: Data, number: int, size: int, accumulation_steps: int = 1, context: DistributedContext = SINGLE_PROCESS
) -> list[Batch]:
    photos = load_dataset(DataConfig(photos=data.photos, index=data.index))[Split.VALIDATION]
    loader = PhotoLoader(
        photos, size, seed=3, augment=AugmentConfig(), shuffle=True, threads=2, accumulation_steps=accumulation_steps,
        context=context,
    )  # fmt: skip
    return list(loader.epoch(number))


def test_augmentation_is_the_same_for_any_number_of_shards(data: Data) -> None:
    """18 photos make two steps of nine, in one process or in two micro-batches of two processes."""
    single_process = epoch(data, 1, 12)
    assert [len(batch.inputs) for batch in single_process] == [9, 9]
    parts = [epoch(data, 1, 3, 2, DistributedContext(rank, 2)) for rank in range(2)]
    assert [[len(batch.inputs) for batch in part] for part in parts] == [[2, 2, 2, 2], [2, 3, 2, 3]]
    for number, step in enumerate(single_process):
        shard = [part[2 * number + index] for index in range(2) for part in parts]
        assert torch.equal(torch.cat([batch.inputs for batch in shard]), step.inputs)
        assert torch.equal(torch.cat([batch.quantities for batch in shard]), step.quantities)
        assert all(torch.equal(batch.step_quantities, step.quantities) for batch in shard)
    assert sum(batch.photos for batch in parts[0]) == 18


def test_epochs_are_reproducible_and_differ(data: Data) -> None:
    first, repeated, other = (epoch(data, number, 12) for number in (1, 1, 2))
    assert all(
        torch.equal(batch.inputs, repeated_batch.inputs) for batch, repeated_batch in zip(first, repeated, strict=True)
    )
    assert not torch.equal(first[0].quantities, other[0].quantities)


def test_deferred_augmentation_equals_that_of_readers(data: Data) -> None:
    from trainer.data.augment import augment

    photos = load_dataset(DataConfig(photos=data.photos, index=data.index))[Split.TEST]
    options = {"seed": 0, "augment": AugmentConfig(), "shuffle": True, "threads": 1}
    done, drawn = (list(PhotoLoader(photos, 4, deferred=deferred, **options).epoch(0)) for deferred in (False, True))  # type: ignore[arg-type]
    for one, two in zip(done, drawn, strict=True):
        assert one.augment_params is None
        assert two.augment_params is not None
        assert not torch.equal(one.inputs, two.inputs)
        assert torch.equal(one.inputs, augment(two.inputs, two.augment_params))


def test_random_numbers_depend_on_every_seed() -> None:
    seeds = {seeded_generator(*parts).initial_seed() for parts in [(0, 1), (1, 0), (0, 0, 1), (0, 0, 0, 1), (0, 2)]}
    assert len(seeds) == 5


def test_reading_ahead_keeps_the_order() -> None:
    assert list(read_ahead(lambda number: number * 2, range(50), threads=4)) == list(range(0, 100, 2))


def test_an_empty_validation_shard_gives_no_logits(data: Data) -> None:
    """With more processes than photos, some processes have none."""
    photos = load_dataset(DataConfig(photos=data.photos, index=data.index))[Split.TEST]
    none = photos.shard(DistributedContext(0, 11))
    assert len(none) == 0
    batches = PhotoLoader(none, 8, seed=0, augment=None, shuffle=False, threads=1)
    model = build(ModelConfig(architecture="resnet50v2", weights="none", width=0.125))
    assert predict_logits(model, batches, TrainConfig()).shape == (0, 22)
