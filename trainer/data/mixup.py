"""Photos laid over each other, and their targets with them (mixup, Zhang et al. 2018, arXiv 1710.09412)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mix:
    """Which rows are laid over which. On the CPU, so that a seed means the same on every device."""

    first: Tensor
    """Places of rows, int64 (mixed,)."""
    second: Tensor
    """Places of the rows that they are mixed with, int64 (mixed,)."""
    share: Tensor
    """Of the first row in the mixture, float32 (mixed,)."""

    def of(self, rows: Tensor) -> Tensor:
        """The mixtures, of the type of `rows` (any, …) and on its device: (mixed, …)."""
        first, second = (rows[places.to(rows.device)] for places in (self.first, self.second))
        share = self.share.to(rows.device).view(-1, *(1 for _ in rows.shape[1:]))
        mixed = torch.lerp(second.float(), first.float(), share)
        return (mixed if rows.is_floating_point() else mixed.round()).to(rows.dtype)

    def part(self, places: Tensor) -> tuple[Tensor, Mix]:
        """Of the mixtures at `places`: the rows that they take, ascending, and how these are mixed."""
        first, second = self.first[places], self.second[places]
        rows = torch.unique(torch.cat([first, second]))
        return rows, Mix(torch.searchsorted(rows, first), torch.searchsorted(rows, second), self.share[places])


def draw(count: int, alpha: float, random: torch.Generator) -> Mix:
    """Each of `count` rows with another (or itself), in shares drawn from the beta distribution of (alpha, alpha)."""
    seed = int(torch.randint(2**63 - 1, (1,), generator=random))  # torch's own takes no generator
    shares = np.random.default_rng(seed).beta(alpha, alpha, count)
    return Mix(torch.arange(count), torch.randperm(count, generator=random), torch.from_numpy(shares).float())
