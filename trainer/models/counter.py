"""The counting network: normalisation, a backbone, and the head that Binwatch adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from trainer.config import ModelConfig
from trainer.errors import ConfigError
from trainer.models.class_mask import ClassMask
from trainer.models.heads import build_head


class Backbone(Protocol):
    """A network of named units, so that the lower ones can be frozen."""

    channels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Mean and standard deviation of RGB in 0 to 1, for normalising input as the ImageNet weights expect."""

    def units(self) -> dict[str, nn.Module]:
        """Return name → unit, in the order of computation."""


class Normalise(nn.Module):
    """uint8 (batch, h, w, 3) → float32 (batch, 3, h, w), normalised with mean and std of RGB in 0 to 1."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        means, stds = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 1 / (255 * stds), persistent=False)
        self.register_buffer("shift", -means / stds, persistent=False)

    def forward(self, photos: Tensor) -> Tensor:
        return photos.permute(0, 3, 1, 2).float() * self.scale + self.shift


class Counter(nn.Module):
    """uint8 photos (batch, h, w, 3) → logits (batch, quantities) and embedding, both float.

    The units up to `config.freeze` are frozen, so that their output (`features`) can be computed once and stored.
    `from_features` computes the trained units above them.
    """

    def __init__(self, backbone: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        typed = cast(Backbone, backbone)
        self.normalise = Normalise(typed.mean, typed.std)
        self.backbone = backbone
        self.head = build_head(typed.channels, config)
        self.quantities = config.quantities
        self.class_mask = ClassMask(config.quantities)
        self.frozen_units = units_up_to(list(typed.units()), config.freeze)
        for module in self.frozen_modules():
            module.requires_grad_(False)

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        return self.from_features(self.features(photos))

    def features(self, photos: Tensor) -> Tensor:
        """Compute the output of the frozen units: uint8 (batch, h, w, 3) → float (batch, channels, h', w')."""
        x: Tensor = self.normalise(photos)
        for module in self.frozen_modules():
            x = module(x)
        return x

    def from_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and embedding from the output of `features`."""
        for module in self._unit_modules()[len(self.frozen_units) :]:
            x = module(x)
        logits, embedding = self.head(x)
        return self.class_mask(logits), embedding

    def train(self, mode: bool = True) -> Counter:
        """As in torch, but the batch norms of frozen units keep their statistics."""
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        return self

    def frozen_modules(self) -> list[nn.Module]:
        """Return the modules of the frozen units."""
        return self._unit_modules()[: len(self.frozen_units)]

    def _unit_modules(self) -> list[nn.Module]:
        return list(cast(Backbone, self.backbone).units().values())


def units_up_to(names: list[str], last: str) -> list[str]:
    """Return the names up to and including `last`, a unit ("layer3.2") or a whole stage ("layer3")."""
    if not last:
        return []
    matching = [name for name in names if name == last or name.startswith(f"{last}.")]
    if not matching:
        raise ConfigError(f"model.freeze: no unit {last!r}; choose one of {', '.join(names)}")
    return names[: names.index(matching[-1]) + 1]
