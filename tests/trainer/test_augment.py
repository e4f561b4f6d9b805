from __future__ import annotations

import torch

from trainer.config import AugmentConfig
from trainer.data.augment import augment
from trainer.data.batches import generator, order, read_ahead

NOTHING = AugmentConfig(flip=False, zoom=0, shift=0, rotate=0, brightness=0, contrast=0)


def photos() -> torch.Tensor:
    return torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=generator(1))


def test_nothing_changes_nothing() -> None:
    assert torch.equal(augment(photos(), NOTHING, generator(0)), photos())


def test_a_mirrored_photo_is_the_photo_mirrored() -> None:
    found = augment(photos(), NOTHING.model_copy(update={"flip": True}), generator(0))
    mirrored = [torch.equal(new, old.flip(1)) for new, old in zip(found, photos(), strict=True)]
    same = [torch.equal(new, old) for new, old in zip(found, photos(), strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert any(mirrored)
    assert any(same)


def test_the_same_seed_is_the_same_change() -> None:
    config = AugmentConfig()
    first = augment(photos(), config, generator(0, 1))
    assert torch.equal(first, augment(photos(), config, generator(0, 1)))
    assert not torch.equal(first, augment(photos(), config, generator(0, 2)))


def test_zoom_keeps_everything_in_view() -> None:
    """Marks in the four corners are still there after shrinking."""
    marked = torch.zeros(32, 64, 64, 3, dtype=torch.uint8)
    for rows in (slice(4, 8), slice(-8, -4)):
        for columns in (slice(4, 8), slice(-8, -4)):
            marked[:, rows, columns] = 255
    config = NOTHING.model_copy(update={"zoom": 0.2, "shift": 0.03, "rotate": 3.0})
    found = augment(marked, config, generator(0)).float().mean(dim=3)
    half = found.shape[1] // 2
    corners = [
        found[:, rows, columns]
        for rows in (slice(half), slice(half, None))
        for columns in (slice(half), slice(half, None))
    ]
    assert all((corner.flatten(1).max(dim=1).values > 150).all() for corner in corners)


def test_brightness_and_contrast_stay_in_range() -> None:
    config = NOTHING.model_copy(update={"brightness": 0.9, "contrast": 0.9})
    found = augment(photos(), config, generator(0))
    assert found.dtype == torch.uint8
    assert not torch.equal(found, photos())


def test_an_epoch_has_each_photo_once_in_whole_batches() -> None:
    found = order(100, seed=0, epoch=3, batch_size=32)
    assert [len(batch) for batch in found] == [32, 32, 32]
    assert len(set(torch.cat(found).tolist())) == 96
    again = order(100, seed=0, epoch=3, batch_size=32)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    other = order(100, seed=0, epoch=4, batch_size=32)
    assert not torch.equal(found[0], other[0])


def test_fewer_photos_than_a_batch() -> None:
    assert [len(batch) for batch in order(5, seed=0, epoch=0, batch_size=32)] == [5]


def test_reading_ahead_keeps_the_order() -> None:
    assert list(read_ahead(lambda number: number * 2, range(50), threads=4)) == list(range(0, 100, 2))
