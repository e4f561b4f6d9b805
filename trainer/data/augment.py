"""Random augmentation of training photos, a batch at a time, on the batch's device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import AugmentConfig


@dataclass(frozen=True, slots=True)
class Changes:
    """The augmentation of each photo of a batch. Drawn on the CPU, so that a seed gives the same on every device."""

    affine: Tensor
    """Output position → input position, both in -1 to 1: float (photos, 2, 3)."""
    brightness: Tensor
    """Factor, float (photos,)."""
    contrast: Tensor
    """Factor, float (photos,)."""
    sharpness: Tensor | None
    """Factor of the difference between a photo and its blurred version, float (photos,): below 1 blurs, above 1
    sharpens. None changes nothing."""

    def __getitem__(self, part: Tensor) -> Changes:
        sharpness = None if self.sharpness is None else self.sharpness[part]
        return Changes(self.affine[part], self.brightness[part], self.contrast[part], sharpness)


def augments_on_device(config: AugmentConfig, device: str) -> bool:
    """Whether photos are augmented in the training step on `device`, and not by the threads that read them."""
    return config.where == "device" or (config.where == "auto" and torch.device(device).type != "cpu")


def draw(count: int, config: AugmentConfig, random: torch.Generator) -> Changes:
    """Changes for `count` photos. They only shrink and never grow beyond the frame, so that items stay in view."""
    return Changes(
        affine=_affine(count, config, random),
        brightness=1 + config.brightness * _symmetric(count, random),
        contrast=1 + config.contrast * _symmetric(count, random),
        sharpness=1 + config.sharpness * _symmetric(count, random) if config.sharpness else None,
    )


def augment(photos: Tensor, changes: Changes) -> Tensor:
    """Apply its changes to each photo; uint8 (batch, h, w, 3) in and out. Pixels outside a photo repeat its border."""
    affine = changes.affine.to(photos.device, non_blocking=True)
    grid = functional.affine_grid(affine, [len(photos), 3, *photos.shape[1:3]], False)
    moved = functional.grid_sample(photos.permute(0, 3, 1, 2).float(), grid, padding_mode="border", align_corners=False)
    changed = _relight(_refocus(moved, changes.sharpness), changes)
    return changed.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _affine(count: int, config: AugmentConfig, random: torch.Generator) -> Tensor:
    scale = 1 + config.zoom * torch.rand(count, 2, generator=random)  # above 1 samples beyond the frame: shrinks
    angle = math.radians(config.rotate) * _symmetric(count, random)
    shift = 2 * config.shift * _symmetric(count, random, 2)
    mirror = 1 - 2 * (torch.rand(count, generator=random) < 0.5).float() * config.flip
    cos, sin = torch.cos(angle), torch.sin(angle)
    across = torch.stack([mirror * scale[:, 0] * cos, -scale[:, 1] * sin, shift[:, 0]], dim=1)
    down = torch.stack([mirror * scale[:, 0] * sin, scale[:, 1] * cos, shift[:, 1]], dim=1)
    return torch.stack([across, down], dim=1)


def _refocus(photos: Tensor, sharpness: Tensor | None) -> Tensor:
    """Scale the difference between photos, float (batch, 3, h, w), and their 3×3 blur."""
    if sharpness is None:
        return photos
    factor = sharpness.view(-1, 1, 1, 1).to(photos.device, non_blocking=True)
    smooth = functional.avg_pool2d(functional.pad(photos, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(smooth, photos, factor)


def _relight(photos: Tensor, changes: Changes) -> Tensor:
    """Brightness and contrast of float (batch, 3, h, w) in 0 to 255."""
    brightness, contrast = (
        factor.view(-1, 1, 1, 1).to(photos.device, non_blocking=True)
        for factor in (changes.brightness, changes.contrast)
    )
    mean = photos.mean(dim=(1, 2, 3), keepdim=True)
    return ((photos - mean) * contrast + mean) * brightness


def _symmetric(count: int, random: torch.Generator, *more: int) -> Tensor:
    """Uniform in -1 to 1, float (count, *more)."""
    return 2 * torch.rand(count, *more, generator=random) - 1
