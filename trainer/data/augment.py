"""Random augmentation of training photos, one batch at a time, on the batch's device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import AugmentConfig


@dataclass(frozen=True, slots=True)
class AugmentParams:
    """Random augmentation parameters of a batch, drawn on the CPU, so that a seed gives the same ones on any device."""

    affine: Tensor
    """Affine map from output to input positions, both in -1 to 1, float (photos, 2, 3)."""
    brightness: Tensor
    """Brightness factor, float (photos,)."""
    contrast: Tensor
    """Contrast factor, float (photos,)."""
    sharpness: Tensor | None
    """Factor of the difference between a photo and its blurred version, float (photos,): below 1 blurs, above 1
    sharpens. None leaves the sharpness unchanged."""

    def __getitem__(self, positions: Tensor) -> AugmentParams:
        sharpness = None if self.sharpness is None else self.sharpness[positions]
        return AugmentParams(self.affine[positions], self.brightness[positions], self.contrast[positions], sharpness)


def augments_on_device(config: AugmentConfig, device: str) -> bool:
    """Return whether photos are augmented in the training step on `device` rather than by the reader threads."""
    return config.where == "device" or (config.where == "auto" and torch.device(device).type != "cpu")


def sample_params(count: int, config: AugmentConfig, random: torch.Generator) -> AugmentParams:
    """Draw parameters for `count` photos. Zoom only shrinks photos, because enlarging them would cut off items."""
    return AugmentParams(
        affine=_affine(count, config, random),
        brightness=1 + config.brightness * _uniform(count, random),
        contrast=1 + config.contrast * _uniform(count, random),
        sharpness=1 + config.sharpness * _uniform(count, random) if config.sharpness else None,
    )


def augment(photos: Tensor, params: AugmentParams) -> Tensor:
    """Augment photos, uint8 (batch, h, w, 3) in and out. Pixels outside a photo repeat its border."""
    affine = params.affine.to(photos.device, non_blocking=True)
    grid = functional.affine_grid(affine, [len(photos), 3, *photos.shape[1:3]], False)
    warped = functional.grid_sample(
        photos.permute(0, 3, 1, 2).float(), grid, padding_mode="border", align_corners=False
    )
    augmented = _adjust_light(_adjust_sharpness(warped, params.sharpness), params)
    return augmented.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _affine(count: int, config: AugmentConfig, random: torch.Generator) -> Tensor:
    scale = 1 + config.zoom * torch.rand(count, 2, generator=random)  # above 1 shrinks: samples beyond the frame
    angle = math.radians(config.rotate) * _uniform(count, random)
    shift = 2 * config.shift * _uniform(count, random, 2)
    mirror = 1 - 2 * (torch.rand(count, generator=random) < 0.5).float() * config.flip
    cos, sin = torch.cos(angle), torch.sin(angle)
    x_row = torch.stack([mirror * scale[:, 0] * cos, -scale[:, 1] * sin, shift[:, 0]], dim=1)
    y_row = torch.stack([mirror * scale[:, 0] * sin, scale[:, 1] * cos, shift[:, 1]], dim=1)
    return torch.stack([x_row, y_row], dim=1)


def _adjust_sharpness(photos: Tensor, sharpness: Tensor | None) -> Tensor:
    """Scale the difference between photos, float (batch, 3, h, w), and their 3×3 blur."""
    if sharpness is None:
        return photos
    factor = sharpness.view(-1, 1, 1, 1).to(photos.device, non_blocking=True)
    blurred = functional.avg_pool2d(functional.pad(photos, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(blurred, photos, factor)


def _adjust_light(photos: Tensor, params: AugmentParams) -> Tensor:
    """Adjust contrast and brightness of photos, float (batch, 3, h, w) in 0 to 255."""
    brightness, contrast = (
        factor.view(-1, 1, 1, 1).to(photos.device, non_blocking=True) for factor in (params.brightness, params.contrast)
    )
    mean = photos.mean(dim=(1, 2, 3), keepdim=True)
    return ((photos - mean) * contrast + mean) * brightness


def _uniform(count: int, random: torch.Generator, *shape: int) -> Tensor:
    """Draw uniform numbers in -1 to 1, float (count, *shape)."""
    return 2 * torch.rand(count, *shape, generator=random) - 1
