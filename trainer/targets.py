"""What the network is asked to say: the label, softened towards its neighbours, because counts are ordered."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from binwatch.counts import CLASSES, MORE

FARTHEST = 40
"""Quantities above this one are treated as this one: all their weight is on "more than 5" anyway."""


def soft_targets(quantities: Tensor, sigma: float) -> Tensor:
    """Items per photo, int64 (batch,) → target probabilities, float32 (batch, classes).

    A bell of width `sigma` around the quantity, over whole numbers; what lies beyond 5 is added up in "more than 5".
    So 6 leaks a little towards 5, and 20 does not.
    """
    if sigma == 0:
        return functional.one_hot(quantities.clamp(max=MORE), len(CLASSES)).float()
    numbers = torch.arange(FARTHEST + 10, device=quantities.device)
    distance = numbers[None, :] - quantities.clamp(max=FARTHEST)[:, None]
    bell = torch.exp(-(distance**2) / (2 * sigma**2))
    bell = bell / bell.sum(dim=1, keepdim=True)
    return torch.cat([bell[:, :MORE], bell[:, MORE:].sum(dim=1, keepdim=True)], dim=1)
