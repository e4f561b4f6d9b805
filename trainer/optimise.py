"""The optimiser, its learning rates, and the averaged weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from trainer.config import TrainConfig
from trainer.models.counter import Counter


def optimiser(model: Counter, loaded: list[str], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over what learns: slower where weights were `loaded`, no weight decay on norms and biases."""
    pretrained = {f"backbone.{name}" for name in loaded}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = config.pretrained_factor if name in pretrained else 1.0
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": config.learning_rate * factor, "factor": factor, "weight_decay": decay}
            for (factor, decay), parameters in groups.items()
        ]
    )


def share_of_peak(step: int, steps: int, warmup: float) -> float:
    """Learning rate at `step` of `steps`, as a share of the peak: linear rise, then half a cosine to zero."""
    rise = max(int(steps * warmup), 1)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def set_learning_rate(chosen: torch.optim.Optimizer, peak: float, share: float) -> None:
    """Move every group to `share` of its own peak."""
    for group in chosen.param_groups:
        group["lr"] = peak * group["factor"] * share


class Average:
    """A copy of the model whose weights follow the trained ones slowly: steadier, and usually better."""

    def __init__(self, model: Counter, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, model: Counter, step: int) -> None:
        """Move towards `model`; early on faster, so that the fresh weights of the start are soon forgotten."""
        decay = min(self._decay, (1 + step) / (10 + step))
        if self._decay == 0:
            decay = 0.0
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        floating = [(mean, value) for mean, value in pairs if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floating], [value for _, value in floating], 1 - decay)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)
