"""Training targets: labels softened towards the neighbouring quantities, because counts are ordered.

The number of items in a photo is encoded as n if the photo shows n items, and as ~n, which is negative, if it shows n
items or more.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from binwatch.counts import CLASSES, MAX_EXACT_COUNT, MORE_THAN_5

MAX_EXCESS = 35
"""Maximum excess of a quantity over `highest`. Larger ones are clamped: their weight is all on "more" in any case."""
BELL_MARGIN = 10
"""Number of quantities beyond MAX_EXCESS, so that the bell is complete."""


def min_quantities(quantities: Tensor) -> Tensor:
    """Decode items per photo, int64 (batch,) in and out: n for both n and "n or more"."""
    return torch.where(quantities < 0, ~quantities, quantities)


def classes_of(quantities: Tensor) -> Tensor:
    """Return the class, 0 to 6, of items per photo; int64 (batch,) in and out."""
    return min_quantities(quantities).clamp(max=MORE_THAN_5)


def soft_targets(quantities: Tensor, sigma: float, highest: int = MAX_EXACT_COUNT) -> Tensor:
    """Return target probabilities, float32 (batch, highest + 2), of items per photo, int64 (batch,).

    They are the probabilities of 0, 1, … `highest` items and of more: a bell curve around the quantity, whose part
    beyond `highest` is added to the last probability. Its width is `sigma` up to 5 items. Beyond, it grows in
    proportion to the quantity, as counting errors do, up to the width at `highest`.
    """
    if sigma == 0:
        return functional.one_hot(quantities.clamp(max=highest + 1), highest + 2).float()
    support = torch.arange(highest + MAX_EXCESS + BELL_MARGIN, device=quantities.device)
    distance = support[None, :] - quantities.clamp(max=highest + MAX_EXCESS)[:, None]
    width = sigma * (quantities.clamp(MAX_EXACT_COUNT, highest).double() / MAX_EXACT_COUNT)
    bell = torch.exp(-(distance**2) / (2 * width**2).float()[:, None])
    bell = bell / bell.sum(dim=1, keepdim=True)
    return torch.cat([bell[:, : highest + 1], bell[:, highest + 1 :].sum(dim=1, keepdim=True)], dim=1)


def class_logits(logits: Tensor) -> Tensor:
    """Return the logits of the seven classes, float (batch, 7), from those of quantities, float (batch, quantities).

    All quantities beyond 5 become "more than 5". Seven logits are returned unchanged, bit for bit.
    """
    return torch.cat([logits[:, :MORE_THAN_5], logits[:, MORE_THAN_5:].logsumexp(dim=1, keepdim=True)], dim=1)


def expand_to_quantities(class_values: Tensor, quantities: int) -> Tensor:
    """Return a value per quantity, (quantities,), from one per class, (7,). All beyond 5 get that of "more than 5"."""
    return torch.cat([class_values, class_values[MORE_THAN_5:].expand(quantities - len(CLASSES))])
