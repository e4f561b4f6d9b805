"""Photo properties with known values, and packing of embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from binwatch.embedding import pack, unpack
from binwatch.photo_stats import photo_stats


def _plain(value: int) -> np.ndarray:
    return np.full((224, 224, 3), value, np.uint8)


@pytest.mark.parametrize(("value", "brightness"), [(0, 0.0), (255, 1.0), (51, 0.2)])
def test_properties_of_a_uniform_photo(value: int, brightness: float) -> None:
    stats = photo_stats(_plain(value))
    assert stats.brightness == pytest.approx(brightness, abs=1e-5)
    assert stats.contrast == pytest.approx(0, abs=1e-5)
    assert stats.sharpness == pytest.approx(0, abs=1e-5)


def test_a_chequerboard_has_maximum_contrast_and_sharpness() -> None:
    board = np.indices((224, 224)).sum(axis=0) % 2 * 255
    stats = photo_stats(np.repeat(board[..., None], 3, axis=2).astype(np.uint8))
    assert stats.contrast == pytest.approx(0.5, abs=1e-5)
    assert stats.sharpness == pytest.approx(4, abs=1e-4)


def test_embeddings_are_packed_in_half_precision() -> None:
    embedding = np.array([0, -1.5, 3.14159, 1e9, -1e9], np.float32)
    packed = pack(embedding)
    assert len(packed) == 10
    assert unpack(packed) == pytest.approx([0, -1.5, 3.140625, 65504, -65504])
