"""The optimiser, its learning rates, and the averaged weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from trainer.config import TrainConfig
from trainer.models.counter import Counter

MOMENTUM = 0.9
LOW_MOMENTUM = 0.85
"""Of one-cycle, where the learning rate is highest (Smith 2018, arXiv 1803.09820)."""
FIRST, LAST = 1 / 25, 1e-5
"""Where one-cycle starts and ends, as shares of the peak."""


def optimiser(model: Counter, loaded: list[str], config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimiser: slower where weights were `loaded`, no weight decay on norms and biases."""
    pretrained = {f"backbone.{name}" for name in loaded}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = config.pretrained_factor if name in pretrained else 1.0
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    found = [
        {"params": parameters, "lr": config.learning_rate * factor, "factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(found, lr=config.learning_rate, momentum=MOMENTUM, nesterov=True)
    return (torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW)(found)


def share_of_peak(step: int, steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Learning rate at `step` of `steps`, as a share of the peak.

    A rise (linear, or with one-cycle half a cosine), then half a cosine to zero, or the peak for ever.
    """
    rise = max(int(steps * warmup), 1)
    done = max(step - rise, 0) / max(steps - rise, 1)
    if schedule == "one_cycle":
        return _between(FIRST, 1, (step + 1) / rise) if step < rise else _between(1, LAST, done)
    if step < rise:
        return (step + 1) / rise
    return 1.0 if schedule == "constant" else _between(1, 0, done)


def _between(start: float, end: float, done: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def set_rates(chosen: torch.optim.Optimizer, config: TrainConfig, step: int, steps: int) -> None:
    """Learning rate, and with one-cycle momentum, of every group at `step` of `steps`."""
    share = share_of_peak(step, steps, config.warmup, config.schedule)
    for group in chosen.param_groups:
        group["lr"] = config.learning_rate * group["factor"] * share
        if config.schedule == "one_cycle":
            momentum = MOMENTUM + (LOW_MOMENTUM - MOMENTUM) * share
            if "momentum" in group:
                group["momentum"] = momentum
            else:
                group["betas"] = (momentum, group["betas"][1])


class Average:
    """A copy of the model whose weights follow the trained ones slowly: steadier, and usually better."""

    def __init__(self, model: Counter, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, model: Counter, step: int) -> None:
        """Move towards `model`; early on faster, so that the fresh weights of the start are soon forgotten."""
        decay = min(self._decay, (1 + step) / (10 + step))
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        floating = [(mean, value) for mean, value in pairs if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floating], [value for _, value in floating], 1 - decay)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)
