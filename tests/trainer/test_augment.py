from __future__ import annotations

import pytest
import torch

from trainer.config import AugmentConfig
from trainer.data.augment import augment, sample_params
from trainer.data.sampler import seeded_generator

NOTHING = AugmentConfig(flip=False, zoom=0, shift=0, rotate=0, brightness=0, contrast=0)


def photos() -> torch.Tensor:
    return torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=seeded_generator(1))


def changed(photos: torch.Tensor, config: AugmentConfig, random: torch.Generator) -> torch.Tensor:
    return augment(photos, sample_params(len(photos), config, random))


def test_zero_augmentation_is_the_identity() -> None:
    assert torch.equal(changed(photos(), NOTHING, seeded_generator(0)), photos())


def test_flip_mirrors_the_photo() -> None:
    result = changed(photos(), NOTHING.model_copy(update={"flip": True}), seeded_generator(0))
    mirrored = [torch.equal(new, old.flip(1)) for new, old in zip(result, photos(), strict=True)]
    is_unchanged = [torch.equal(new, old) for new, old in zip(result, photos(), strict=True)]
    assert all(is_mirrored != other for is_mirrored, other in zip(mirrored, is_unchanged, strict=True))
    assert any(mirrored)
    assert any(is_unchanged)


def test_augmentation_is_deterministic_per_seed() -> None:
    config = AugmentConfig()
    first = changed(photos(), config, seeded_generator(0, 1))
    assert torch.equal(first, changed(photos(), config, seeded_generator(0, 1)))
    assert not torch.equal(first, changed(photos(), config, seeded_generator(0, 2)))


def test_zoom_keeps_the_whole_photo_in_the_frame() -> None:
    """Marks in the four corners remain visible after zooming out."""
    marked = torch.zeros(32, 64, 64, 3, dtype=torch.uint8)
    for rows in (slice(4, 8), slice(-8, -4)):
        for columns in (slice(4, 8), slice(-8, -4)):
            marked[:, rows, columns] = 255
    config = NOTHING.model_copy(update={"zoom": 0.2, "shift": 0.03, "rotate": 3.0})
    result = changed(marked, config, seeded_generator(0)).float().mean(dim=3)
    half = result.shape[1] // 2
    corners = [
        result[:, rows, columns]
        for rows in (slice(half), slice(half, None))
        for columns in (slice(half), slice(half, None))
    ]
    assert all((corner.flatten(1).max(dim=1).values > 150).all() for corner in corners)


def test_brightness_and_contrast_stay_in_range() -> None:
    config = NOTHING.model_copy(update={"brightness": 0.9, "contrast": 0.9})
    result = changed(photos(), config, seeded_generator(0))
    assert result.dtype == torch.uint8
    assert not torch.equal(result, photos())


def test_sharpness_blurs_some_photos_and_sharpens_others() -> None:
    """For noise, differences between neighbouring pixels shrink or grow; the mean stays."""
    grey = torch.randint(96, 160, (16, 32, 32, 3), dtype=torch.uint8, generator=seeded_generator(1))
    result = changed(grey, NOTHING.model_copy(update={"sharpness": 0.8}), seeded_generator(0)).float()
    rough = result.diff(dim=1).abs().mean(dim=(1, 2, 3)) / grey.float().diff(dim=1).abs().mean(dim=(1, 2, 3))
    assert rough.min() < 0.5
    assert rough.max() > 1.3
    assert result.mean() == pytest.approx(float(grey.float().mean()), abs=0.5)
