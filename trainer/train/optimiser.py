"""The optimiser, with parameter groups for learning rate and weight decay."""

from __future__ import annotations

import torch
from torch import nn

from trainer.config import TrainConfig
from trainer.models.counter import Counter

MOMENTUM = 0.9


def create_optimiser(model: Counter, pretrained: list[str], config: TrainConfig) -> torch.optim.Optimizer:
    """Create the optimiser, with a smaller learning rate for `pretrained` and no weight decay on norms and biases.

    `pretrained` are the names of the backbone's pretrained parameters.
    """
    pretrained_names = {f"backbone.{name}" for name in pretrained}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = config.pretrained_factor if name in pretrained_names else 1.0
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    param_groups = [
        {"params": parameters, "lr": config.learning_rate * factor, "factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(param_groups, lr=config.learning_rate, momentum=MOMENTUM, nesterov=True)
    return (torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW)(param_groups)
