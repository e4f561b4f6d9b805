"""Training targets: a label, softened towards the neighbouring quantities, because counts are ordered.

Items per photo are whole numbers: n if the photo shows n items, and ~n, which is negative, if it shows n or more.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from binwatch.counts import CLASSES, HIGHEST, MORE

BEYOND = 35
"""Quantities further than this above the highest are treated as this one: their weight is on "more" in any case."""
MARGIN = 10
"""Further quantities, so that the bell is complete."""


def least(quantities: Tensor) -> Tensor:
    """Items per photo, or the fewest that it may show, int64 (batch,) in and out."""
    return torch.where(quantities < 0, ~quantities, quantities)


def classes_of(quantities: Tensor) -> Tensor:
    """Items per photo → the seven classes, 0 to 6, int64 (batch,)."""
    return least(quantities).clamp(max=MORE)


def soft_targets(quantities: Tensor, sigma: float, highest: int = HIGHEST) -> Tensor:
    """Items per photo, int64 (batch,) → target probabilities, float32 (batch, highest + 2).

    They are the probabilities of 0, 1, … `highest` items and of more: a bell around the quantity, whose part beyond
    `highest` is added to the last probability. Its width is `sigma` up to 5 items and grows in proportion to the
    quantity beyond, as errors of counts do, up to the width at `highest`.
    """
    if sigma == 0:
        return functional.one_hot(quantities.clamp(max=highest + 1), highest + 2).float()
    numbers = torch.arange(highest + BEYOND + MARGIN, device=quantities.device)
    distance = numbers[None, :] - quantities.clamp(max=highest + BEYOND)[:, None]
    width = sigma * (quantities.clamp(HIGHEST, highest).double() / HIGHEST)
    bell = torch.exp(-(distance**2) / (2 * width**2).float()[:, None])
    bell = bell / bell.sum(dim=1, keepdim=True)
    return torch.cat([bell[:, : highest + 1], bell[:, highest + 1 :].sum(dim=1, keepdim=True)], dim=1)


def class_logits(logits: Tensor) -> Tensor:
    """Logits (batch, quantities) → those of the seven classes, float (batch, 7). All beyond 5 become "more than 5".

    Seven logits are returned unchanged, bit for bit.
    """
    return torch.cat([logits[:, :MORE], logits[:, MORE:].logsumexp(dim=1, keepdim=True)], dim=1)


def expand_to_quantities(classes: Tensor, quantities: int) -> Tensor:
    """Values of the seven classes, (7,) → values of `quantities` quantities; all beyond 5 get that of "more than 5"."""
    return torch.cat([classes, classes[MORE:].expand(quantities - len(CLASSES))])
