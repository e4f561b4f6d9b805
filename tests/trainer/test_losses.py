"""Losses, class weights, optimisers and schedules, compared with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainer.config import DistilConfig, ModelConfig, TrainConfig
from trainer.models import build
from trainer.train.losses import Loss, class_weights
from trainer.train.optimiser import create_optimiser
from trainer.train.scheduler import LrScheduler, lr_factor


def logits(*classes: int) -> torch.Tensor:
    """Return logits that are almost certain of these classes."""
    return 30 * torch.nn.functional.one_hot(torch.tensor(classes), 7).float()


def loss(kind: str, answers: torch.Tensor, *quantities: int, weights: torch.Tensor | None = None) -> float:
    return float(Loss(TrainConfig.model_validate({"loss": kind}), weights)(answers, torch.tensor(quantities)))


def test_the_ordinal_loss_grows_with_the_distance() -> None:
    right, near, far = (loss("ordinal", logits(answer) / 10, 2) for answer in (2, 3, 5))
    assert right < near < far
    assert loss("cross_entropy", logits(3), 2) == pytest.approx(loss("cross_entropy", logits(5), 2))


def test_plain_cross_entropy() -> None:
    assert loss("cross_entropy", torch.zeros(1, 7), 3) == pytest.approx(np.log(7))
    assert loss("cross_entropy", logits(6), 12) == pytest.approx(0, abs=1e-6)


def test_class_weights() -> None:
    labels = np.array([0] * 8 + [1] * 2)
    balanced, half = class_weights(labels, "balanced"), class_weights(labels, "sqrt")
    assert class_weights(labels, "none") is None
    assert balanced is not None
    assert half is not None
    assert balanced[:2].tolist() == pytest.approx([0.625, 2.5])
    assert float(half[1] / half[0]) == pytest.approx(2)
    assert float(half[labels].mean()) == pytest.approx(1)
    uniform = torch.zeros(2, 7)
    uniform[1, 1] = 2  # a photo with 0 items and one with 1, the second nearly right
    weighted = loss("cross_entropy", uniform, 0, 1, weights=balanced)
    first, second = loss("cross_entropy", uniform[:1], 0), loss("cross_entropy", uniform[1:], 1)
    assert weighted == pytest.approx((0.625 * first + 2.5 * second) / 3.125)


@pytest.mark.parametrize("kind", ["ordinal", "cross_entropy"])
def test_distillation_has_its_share_of_the_loss(kind: str) -> None:
    """Compare with a manual result for one photo; a student that equals its teachers has minimum loss."""
    config = TrainConfig.model_validate({"loss": kind})
    answers = torch.tensor([[0.0, 0.1, 0.6, 0.3, 0, 0, 0]])
    spoken, quantity = torch.linspace(-1, 2, 7)[None], torch.tensor([3])
    label_only = float(Loss(config)(spoken, quantity))
    hot = torch.softmax(spoken / 2, dim=1)[0]
    distance = -(answers[0] * hot.log()).sum()
    result = Loss(config, distil=DistilConfig(share=0.25, temperature=2))(
        spoken, quantity, teacher_probabilities=answers
    )
    assert float(result) == pytest.approx(0.75 * label_only + 0.25 * 4 * float(distance), rel=1e-5)

    logits = answers.clamp(min=1e-6).log().requires_grad_()
    Loss(config, distil=DistilConfig(share=1))(logits, quantity, teacher_probabilities=answers).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(1, 7), atol=1e-5, rtol=0)


def test_class_weights_apply_to_distillation() -> None:
    weights = torch.tensor([0.5, 2, 1, 1, 1, 1, 1])
    loss = Loss(TrainConfig(loss="cross_entropy"), weights, DistilConfig(share=1))
    answers = torch.eye(7)[[3, 4]]
    spoken = torch.linspace(-1, 1, 14).view(2, 7)
    each = functional.cross_entropy(spoken, answers, reduction="none")
    result = loss(spoken, torch.tensor([0, 1]), teacher_probabilities=answers)
    assert float(result) == pytest.approx(float(0.5 * each[0] + 2 * each[1]) / 2.5)


@pytest.mark.parametrize(
    ("schedule", "start", "peak", "middle", "end"),
    [("cosine", 0.1, 1, 0.5, 0), ("one_cycle", 0.0635, 1, 0.5, 1e-5), ("constant", 0.1, 1, 1, 1)],
)
def test_schedules(schedule: str, start: float, peak: float, middle: float, end: float) -> None:
    result = [lr_factor(step, 100, 0.1, schedule) for step in (0, 9, 55, 100)]
    assert result == pytest.approx([start, peak, middle, end], abs=1e-3)


@pytest.mark.parametrize(("name", "kind"), [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")])
def test_optimisers_and_the_momentum_of_one_cycle(name: str, kind: str) -> None:
    config = TrainConfig.model_validate({"optimiser": name, "schedule": "one_cycle", "learning_rate": 0.5})
    model = build(ModelConfig(architecture="resnet50v2", weights="none", width=0.125))
    chosen = create_optimiser(model, ["conv1.weight"], config)
    assert type(chosen).__name__ == kind
    scheduler = LrScheduler(chosen, config, 100)
    scheduler.set_learning_rates(9)  # the peak
    slow, fast = sorted({group["lr"] for group in chosen.param_groups})
    assert (slow, fast) == pytest.approx((0.1, 0.5))
    group = chosen.param_groups[0]
    assert (group["momentum"] if name == "sgd" else group["betas"][0]) == pytest.approx(0.85)
    scheduler.set_learning_rates(100)
    assert (group["momentum"] if name == "sgd" else group["betas"][0]) == pytest.approx(0.9, abs=1e-4)
