"""One optimisation step: gradient accumulation, clipping, and averaged weights."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.trainer.torchrun_script import Tiny
from trainer.config import ModelConfig, TrainConfig
from trainer.data.loader import Batch
from trainer.distributed.context import SINGLE_PROCESS
from trainer.models.counter import Counter
from trainer.train.losses import Loss
from trainer.train.step import TrainStep

MODEL = ModelConfig(weights="none", dropout=0.0, highest=5)
TRAIN = TrainConfig(optimiser="sgd", learning_rate=0.01, schedule="constant", warmup=0.0, weight_decay=0.0)


@pytest.fixture
def model() -> Counter:
    torch.manual_seed(0)
    return Counter(Tiny(norm=False), MODEL)


def step_of(model: Counter, config: TrainConfig = TRAIN) -> TrainStep:
    return TrainStep(model, [], Loss(config), config, steps=10, context=SINGLE_PROCESS, features=False)


def batches(parts: int) -> list[Batch]:
    """Return eight photos in `parts` micro-batches."""
    random = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (8, 64, 64, 3), generator=random, dtype=torch.uint8)
    quantities = torch.arange(8) % 7
    pairs = zip(pixels.chunk(parts), quantities.chunk(parts), strict=True)
    return [Batch(each, labels, quantities, len(labels)) for each, labels in pairs]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_micro_batches_add_up_to_one_step(model: Counter) -> None:
    before, parted = weights(model), copy.deepcopy(model)
    losses = [step_of(model)(0, batches(1), 1), step_of(parted)(0, batches(4), 4)]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-5)
    for name, value in weights(model).items():
        torch.testing.assert_close(weights(parted)[name], value, rtol=1e-4, atol=1e-7)
        assert not torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_are_clipped(model: Counter) -> None:
    """The first step of SGD with Nesterov momentum 0.9 is 1.9 times the gradient."""
    before = weights(model)
    step_of(model, TRAIN.model_copy(update={"clip": 0.05, "learning_rate": 0.1}))(0, batches(1), 1)
    moved = torch.cat([(value - before[name]).flatten() for name, value in weights(model).items()])
    assert float(moved.norm()) == pytest.approx(0.05 * 0.1 * 1.9, rel=1e-3)


def test_averaged_weights_follow_faster_at_the_start(model: Counter) -> None:
    expected = weights(model)
    step = step_of(model, TRAIN.model_copy(update={"ema": 0.15}))
    for number, decay in enumerate((1 / 10, 0.15, 0.15)):  # 2 / 11 and 3 / 12 are beyond train.ema
        step(number, batches(1), 1)
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in weights(model).items()}
    for name, value in weights(step.ema.module).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)
