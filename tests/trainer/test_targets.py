from __future__ import annotations

import math

import pytest
import torch

from trainer.models.targets import soft_targets


def test_one_hot_targets() -> None:
    result = soft_targets(torch.tensor([0, 5, 6, 30]), 0)
    assert result.argmax(dim=1).tolist() == [0, 5, 6, 6]
    assert result.sum(dim=1).tolist() == [1, 1, 1, 1]


def test_soft_targets_include_neighbours() -> None:
    near, far = math.exp(-2), math.exp(-8)  # one and two items away, with sigma 0.5
    total = 1 + 2 * near + 2 * far
    result = soft_targets(torch.tensor([3]), 0.5)[0].tolist()
    assert result[3] == pytest.approx(1 / total, abs=1e-6)
    assert result[2] == result[4] == pytest.approx(near / total, abs=1e-6)
    assert result[1] == result[5] == pytest.approx(far / total, abs=1e-6)


def test_soft_targets_of_more_than_five() -> None:
    six, twenty, many = soft_targets(torch.tensor([6, 20, 1000]), 0.5)
    assert six[5] == pytest.approx(math.exp(-2) / (1 + 2 * math.exp(-2)), abs=1e-3)
    assert [twenty[6].item(), many[6].item()] == pytest.approx([1, 1])
    assert six.sum() == pytest.approx(1)
