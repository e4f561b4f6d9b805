"""Schedules of the learning rate and of one-cycle's momentum. They depend only on the step: resuming needs no state."""

from __future__ import annotations

import math

import torch

from trainer.config import TrainConfig
from trainer.train.optimiser import MOMENTUM

MIN_MOMENTUM = 0.85
"""Momentum of one-cycle at the peak of the learning rate (Smith 2018, arXiv 1803.09820)."""
INITIAL_FACTOR, FINAL_FACTOR = 1 / 25, 1e-5
"""First and last learning rate of one-cycle, as factors of the peak."""


class LrScheduler:
    """Sets the learning rate of the optimiser's parameter groups for each of the `steps` of a run."""

    def __init__(self, optimiser: torch.optim.Optimizer, config: TrainConfig, steps: int) -> None:
        self._optimiser = optimiser
        self._config = config
        self._steps = steps

    def set_learning_rates(self, step: int) -> None:
        """Set the learning rate of every group for `step`, and with one-cycle the momentum."""
        config = self._config
        factor = lr_factor(step, self._steps, config.warmup, config.schedule)
        for group in self._optimiser.param_groups:
            group["lr"] = config.learning_rate * group["factor"] * factor
            if config.schedule == "one_cycle":
                momentum = MOMENTUM + (MIN_MOMENTUM - MOMENTUM) * factor
                if "momentum" in group:
                    group["momentum"] = momentum
                else:
                    group["betas"] = (momentum, group["betas"][1])


def lr_factor(step: int, steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Return the learning rate at `step` of `steps`, as a factor of the peak.

    It rises linearly, or with one-cycle along half a cosine. It then falls along half a cosine to zero (one-cycle:
    FINAL_FACTOR), or stays constant.
    """
    warmup_steps = max(int(steps * warmup), 1)
    progress = max(step - warmup_steps, 0) / max(steps - warmup_steps, 1)
    if schedule == "one_cycle":
        if step < warmup_steps:
            return _half_cosine(INITIAL_FACTOR, 1, (step + 1) / warmup_steps)
        return _half_cosine(1, FINAL_FACTOR, progress)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 1.0 if schedule == "constant" else _half_cosine(1, 0, progress)


def _half_cosine(start: float, end: float, progress: float) -> float:
    """Interpolate from `start` to `end` along half a cosine; `progress` is in 0 to 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
