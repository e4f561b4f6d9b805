"""Photos → logits of a count: normalisation, a backbone, and the head that Binwatch adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from trainer.config import ModelConfig
from trainer.errors import ConfigError
from trainer.models.class_mask import ClassMask
from trainer.models.heads import head


class Backbone(Protocol):
    """A network whose steps have names, so that the lower ones can be frozen."""

    channels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Mean and standard deviation of RGB in 0 to 1, by which the network's ImageNet weights expect normalised input."""

    def units(self) -> dict[str, nn.Module]:
        """Name → step, in the order of computation."""


class Normalise(nn.Module):
    """uint8 (batch, h, w, 3) → float32 (batch, 3, h, w), normalised with mean and std of RGB in 0 to 1."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        means, stds = (torch.tensor(each).view(1, 3, 1, 1) for each in (mean, std))
        self.register_buffer("scale", 1 / (255 * stds), persistent=False)
        self.register_buffer("shift", -means / stds, persistent=False)

    def forward(self, photos: Tensor) -> Tensor:
        return photos.permute(0, 3, 1, 2).float() * self.scale + self.shift


class Counter(nn.Module):
    """uint8 photos (batch, h, w, 3) → logits (batch, quantities) and embedding, both float.

    The steps up to `config.freeze` are frozen, so that their output (`features`) can be computed once and stored;
    `from_features` computes the steps above, which are trained.
    """

    def __init__(self, backbone: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        steps = cast(Backbone, backbone)
        self.normalise = Normalise(steps.mean, steps.std)
        self.backbone = backbone
        self.head = head(steps.channels, config)
        self.quantities = config.quantities
        self.class_mask = ClassMask(config.quantities)
        self.frozen = units_up_to(list(steps.units()), config.freeze)
        for step in self.frozen_modules():
            step.requires_grad_(False)

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        return self.from_features(self.features(photos))

    def features(self, photos: Tensor) -> Tensor:
        """uint8 (batch, h, w, 3) → output of the frozen steps, float (batch, channels, h', w')."""
        x: Tensor = self.normalise(photos)
        for step in self.frozen_modules():
            x = step(x)
        return x

    def from_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Output of `features` → logits and embedding."""
        for step in self._steps()[len(self.frozen) :]:
            x = step(x)
        logits, embedding = self.head(x)
        return self.class_mask(logits), embedding

    def train(self, mode: bool = True) -> Counter:
        """As in torch, but the norms of frozen steps keep their statistics."""
        super().train(mode)
        for step in self.frozen_modules():
            step.eval()
        return self

    def frozen_modules(self) -> list[nn.Module]:
        """The steps that are not trained."""
        return self._steps()[: len(self.frozen)]

    def _steps(self) -> list[nn.Module]:
        return list(cast(Backbone, self.backbone).units().values())


def units_up_to(names: list[str], last: str) -> list[str]:
    """Names up to `last` inclusive, which is a unit ("layer3.2") or a whole stage ("layer3")."""
    if not last:
        return []
    matching = [name for name in names if name == last or name.startswith(f"{last}.")]
    if not matching:
        raise ConfigError(f"model.freeze: no unit {last!r}; choose one of {', '.join(names)}")
    return names[: names.index(matching[-1]) + 1]
