"""Learning rates, and the momentum of one-cycle. They follow from the step alone, so resuming needs no state."""

from __future__ import annotations

import math

import torch

from trainer.config import TrainConfig
from trainer.train.optimiser import MOMENTUM

LOW_MOMENTUM = 0.85
"""Momentum of one-cycle at the peak of the learning rate (Smith 2018, arXiv 1803.09820)."""
FIRST, LAST = 1 / 25, 1e-5
"""First and last learning rate of one-cycle, as factors of the peak."""


class LrScheduler:
    """Sets the learning rate of the optimiser's groups for each of the `steps` of a run."""

    def __init__(self, optimiser: torch.optim.Optimizer, config: TrainConfig, steps: int) -> None:
        self._optimiser = optimiser
        self._config = config
        self._steps = steps

    def set(self, step: int) -> None:
        """The learning rate of every group at `step`, and with one-cycle the momentum."""
        config = self._config
        factor = lr_factor(step, self._steps, config.warmup, config.schedule)
        for group in self._optimiser.param_groups:
            group["lr"] = config.learning_rate * group["factor"] * factor
            if config.schedule == "one_cycle":
                momentum = MOMENTUM + (LOW_MOMENTUM - MOMENTUM) * factor
                if "momentum" in group:
                    group["momentum"] = momentum
                else:
                    group["betas"] = (momentum, group["betas"][1])


def lr_factor(step: int, steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Learning rate at `step` of `steps`, as a factor of the peak.

    It rises (linearly, or with one-cycle by half a cosine), and then falls by half a cosine to zero or stays constant.
    """
    rise = max(int(steps * warmup), 1)
    done = max(step - rise, 0) / max(steps - rise, 1)
    if schedule == "one_cycle":
        return _half_cosine(FIRST, 1, (step + 1) / rise) if step < rise else _half_cosine(1, LAST, done)
    if step < rise:
        return (step + 1) / rise
    return 1.0 if schedule == "constant" else _half_cosine(1, 0, done)


def _half_cosine(start: float, end: float, done: float) -> float:
    """Half a cosine from `start` to `end`; `done` is the share of the way."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
