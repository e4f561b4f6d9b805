"""The self-check: its photos are fixed, and deviating outputs are detected."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest

from binwatch import self_check

PROBABILITIES = np.full((4, 7), 1 / 7, np.float32)
EMBEDDINGS = np.arange(12, dtype=np.float32).reshape(4, 3) + 1


def test_the_photos_never_change() -> None:
    """The expected outputs in all cards depend on them."""
    photos = self_check.make_photos(224)
    assert (photos.shape, photos.dtype) == ((4, 224, 224, 3), np.uint8)
    digest = hashlib.sha256(photos.tobytes()).hexdigest()
    assert digest == "dd4e8a7de97b73b937ca7f118cc5c4508865b328006599146a17671107d9ebf5"


def test_matching_answers_pass() -> None:
    expected = self_check.make_self_check(PROBABILITIES, EMBEDDINGS)
    assert self_check.describe_mismatch(expected, PROBABILITIES + 0.02, EMBEDDINGS * 1.05) is None


@pytest.mark.parametrize(
    ("probabilities", "embeddings", "message"),
    [
        (PROBABILITIES + np.eye(4, 7) * 0.04, EMBEDDINGS, r"probabilities differ from the card's by up to 0\.04"),
        (PROBABILITIES, EMBEDDINGS * np.array([[1], [1], [1], [1.1]]), r"embeddings by up to 10%"),
        (PROBABILITIES * np.nan, EMBEDDINGS, "probabilities differ from the card's by up to nan"),
        (PROBABILITIES, EMBEDDINGS * np.nan, "embeddings by up to nan%"),
        (PROBABILITIES[:, :6], EMBEDDINGS, r"its probabilities have shape \(4, 6\), the card's \(4, 7\)"),
        (PROBABILITIES, EMBEDDINGS[:, :2], r"its embeddings have shape \(4, 2\), the card's \(4, 3\)"),
    ],
)
def test_deviating_answers_are_described(probabilities: np.ndarray, embeddings: np.ndarray, message: str) -> None:
    expected = self_check.make_self_check(PROBABILITIES, EMBEDDINGS)
    mismatch = self_check.describe_mismatch(expected, probabilities, embeddings)
    assert mismatch is not None
    assert re.search(message, mismatch), mismatch
