"""Mixup: photos laid over each other, and what the network is then asked to say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.trainer.drawn import Data
from trainer.config import AugmentConfig, DataConfig, TrainConfig
from trainer.data.batches import PhotoBatches
from trainer.data.dataset import PhotoSet, load_dataset
from trainer.data.epochs import Batch, generator
from trainer.data.mixup import Mix, draw
from trainer.data.split import Split
from trainer.features import FeatureBatches
from trainer.losses import Loss
from trainer.ranks import ALONE, Ranks

LOSSES = ["ordinal", "cross_entropy", "earth_mover"]
PAIR = Mix(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))


def test_photos_are_mixed_as_bytes() -> None:
    photos = torch.tensor([0, 101], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 3, 3)
    found = PAIR.of(photos)
    assert found.dtype == torch.uint8
    assert found[:, 0, 0, 0].tolist() == [25, 50]  # 25.25, and 50.5 to even


def test_targets_are_mixed_and_sum_to_one() -> None:
    """A photo of two items with a quarter of one of four: by hand, with bells of width 0.5."""
    found = PAIR.of(Loss(TrainConfig()).targets(torch.tensor([2, 4])))
    near, far = math.exp(-2), math.exp(-8)  # one and two items away
    total = 1 + 2 * near + 2 * far
    two = [far, near, 1, near, far, 0, 0]
    four = [0, 0, far, near, 1, near, far]
    wanted = [(0.75 * mine + 0.25 * other) / total for mine, other in zip(two, four, strict=True)]
    assert found[0].tolist() == pytest.approx(wanted, abs=1e-5)
    assert found.sum(dim=1).tolist() == pytest.approx([1, 1])

    plain = PAIR.of(Loss(TrainConfig(loss="cross_entropy")).targets(torch.tensor([2, 40])))
    assert plain.tolist() == [[0, 0, 0.75, 0, 0, 0, 0.25], [0, 0, 0.5, 0, 0, 0, 0.5]]


@pytest.mark.parametrize("weights", [None, torch.linspace(0.4, 1.6, 7)], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", LOSSES)
def test_a_mixed_target_teaches_what_both_labels_teach(kind: str, weights: torch.Tensor | None) -> None:
    """Ordered losses and class weights, too: the gradient is that of the two losses, each with its share."""
    loss = Loss(TrainConfig.model_validate({"loss": kind}), weights)
    quantities = torch.tensor([1, 5])
    spoken = torch.linspace(-2, 1, 14).view(2, 7).requires_grad_()
    loss(spoken, quantities, mix=PAIR).backward()
    mixed = spoken.grad
    spoken.grad = None
    for place, share in ((PAIR.first, PAIR.share), (PAIR.second, 1 - PAIR.share)):
        for row in range(2):
            alone = loss(spoken[row : row + 1], quantities[place[row : row + 1]], quantities)
            (share[row] * alone).backward()
    torch.testing.assert_close(mixed, spoken.grad)


def test_shares_are_drawn_from_the_beta_distribution() -> None:
    mix = draw(4000, 0.4, generator(0))
    assert mix.second.sort().values.tolist() == mix.first.tolist() == list(range(4000))
    assert float(mix.share.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(mix.share.var()) == pytest.approx(0.25 / 1.8, abs=0.01)  # 1 / (4 (2α + 1))
    again, other = draw(4000, 0.4, generator(0)), draw(4000, 0.4, generator(1))
    assert torch.equal(mix.share, again.share)
    assert torch.equal(mix.second, again.second)
    assert not torch.equal(mix.share, other.share)


def validation(data: Data) -> PhotoSet:
    return load_dataset(DataConfig(photos=data.photos, index=data.index))[Split.VALIDATION]


def mixtures(batch: Batch) -> torch.Tensor:
    assert batch.mix is not None
    return batch.mix.of(batch.inputs)


def test_photos_are_mixed_alike_however_they_are_spread(data: Data) -> None:
    """18 photos: two steps of nine in one process, or in two passes of two, which read each other's photos."""
    loss = Loss(TrainConfig())

    def epoch(size: int, passes: int = 1, ranks: Ranks = ALONE) -> list[Batch]:
        photos, changed = validation(data), AugmentConfig()
        return list(
            PhotoBatches(
                photos, size, seed=3, augment=changed, shuffle=True, threads=2, passes=passes, ranks=ranks, mixup=0.5
            ).epoch(1)
        )

    whole = epoch(12)
    parts = [epoch(3, 2, Ranks(rank, 2)) for rank in range(2)]
    for number, step in enumerate(whole):
        mine = [part[2 * number + index] for index in range(2) for part in parts]
        assert torch.equal(torch.cat([mixtures(batch) for batch in mine]), mixtures(step))
        targets = [batch.mix.of(loss.targets(batch.quantities)) for batch in mine if batch.mix]
        assert step.mix is not None
        assert torch.equal(torch.cat(targets), step.mix.of(loss.targets(step.quantities)))
        assert all(torch.equal(batch.step, step.quantities) for batch in mine)
    assert not torch.equal(mixtures(whole[0]), whole[0].inputs)


def test_features_and_answers_are_mixed_with_the_same_shares(data: Data) -> None:
    """A map that holds its photo's place and view: what is mixed is told by the numbers."""
    photos = validation(data)
    places = np.arange(len(photos), dtype=np.float16)
    views = [np.broadcast_to((100 * view + places)[:, None, None, None], (18, 2, 2, 1)) for view in range(2)]
    answers = [np.tile((100 * view + places)[:, None], (1, 7)).astype(np.float32) for view in range(2)]
    batches = FeatureBatches(
        views, photos, 9, seed=0, flip=True, shuffle=True, threads=1, mixup=1.0, answers=answers
    )  # fmt: skip
    for batch in batches.epoch(0):
        assert batch.answers is not None
        torch.testing.assert_close(mixtures(batch)[:, 0, 0, 0].float(), batch.answers[:, 0], rtol=1e-2, atol=0.1)
        assert batch.answers.shape == (9, 7)
