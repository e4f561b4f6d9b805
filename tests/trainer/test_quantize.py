from __future__ import annotations

import numpy as np
import pytest

from binwatch.bundle import INPUT
from trainer.export.quantize import _Photos


@pytest.mark.parametrize(("photos", "expected"), [(50, [8] * 6), (16, [8, 8]), (5, [5]), (1, [1])])
def test_the_batches_of_a_calibration_are_of_one_size(photos: int, expected: list[int]) -> None:
    reader = _Photos(np.zeros((photos, 2, 2, 3), np.uint8))
    sizes = []
    while (batch := reader.get_next()) is not None:
        sizes.append(len(batch[INPUT]))
    assert sizes == expected
