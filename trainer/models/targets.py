"""What the network is asked to say: the label, softened towards its neighbours, because counts are ordered.

Items per photo are whole numbers: n of a photo that shows n items, and ~n, which is negative, of one that shows n or
more.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from binwatch.counts import CLASSES, HIGHEST, MORE

BEYOND = 35
"""Quantities that are further than this above the highest are treated as this one: their weight is on "more" anyway."""
MARGIN = 10
"""Quantities above those, so that the bell is whole."""


def least(quantities: Tensor) -> Tensor:
    """Items per photo, or the fewest that it may show, int64 (batch,) in and out."""
    return torch.where(quantities < 0, ~quantities, quantities)


def classes_of(quantities: Tensor) -> Tensor:
    """Items per photo → the seven classes, 0 to 6, int64 (batch,)."""
    return least(quantities).clamp(max=MORE)


def soft_targets(quantities: Tensor, sigma: float, highest: int = HIGHEST) -> Tensor:
    """Items per photo, int64 (batch,) → target probabilities, float32 (batch, highest + 2).

    They are of 0, 1, … `highest` items and of more. A bell around the quantity, over whole numbers; what lies beyond
    `highest` is added up. It is `sigma` wide up to 5 items, and beyond in proportion to the quantity, as errors of
    counts are: ten times as wide at 50 as at 5, but no wider than at `highest`.
    """
    if sigma == 0:
        return functional.one_hot(quantities.clamp(max=highest + 1), highest + 2).float()
    numbers = torch.arange(highest + BEYOND + MARGIN, device=quantities.device)
    distance = numbers[None, :] - quantities.clamp(max=highest + BEYOND)[:, None]
    width = sigma * (quantities.clamp(HIGHEST, highest).double() / HIGHEST)
    bell = torch.exp(-(distance**2) / (2 * width**2).float()[:, None])
    bell = bell / bell.sum(dim=1, keepdim=True)
    return torch.cat([bell[:, : highest + 1], bell[:, highest + 1 :].sum(dim=1, keepdim=True)], dim=1)


def logits_in_classes(logits: Tensor) -> Tensor:
    """Logits (batch, quantities) → those of the seven classes, float (batch, 7): "more than 5" has the sum of the rest.

    Seven come out as they went in, to the bit.
    """
    return torch.cat([logits[:, :MORE], logits[:, MORE:].logsumexp(dim=1, keepdim=True)], dim=1)


def of_each(classes: Tensor, quantities: int) -> Tensor:
    """What is known of the seven classes, (7,), for each of so many quantities: all beyond 5 are "more than 5"."""
    return torch.cat([classes, classes[MORE:].expand(quantities - len(CLASSES))])
