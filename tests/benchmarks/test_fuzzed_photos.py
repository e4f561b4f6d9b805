"""Mutated photos, always the same: none ends its process, raises what is no PhotoError, or takes memory.

`python -m benchmarks.fuzz_photos` tries as many more as one likes.
"""

from __future__ import annotations

import sys

import pytest

from benchmarks.fuzz_photos import LARGE_MIB, fuzz, photo, seeds


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from procfs")
def test_mutated_photos_are_decoded_or_refused() -> None:
    findings = fuzz(first=0, photos=150, seed=14)
    assert findings.problems == []
    assert findings.outcomes.total() == 150
    assert findings.largest_mib < LARGE_MIB
    assert {
        "corrupt",
        "truncated",
        "decoded JPEG",
        "decoded PNG",
        "decoded TIFF",
        "decoded HEIF",
    } <= findings.outcomes.keys()


def test_a_photo_can_be_had_again_by_its_number() -> None:
    assert photo(3, 14) == photo(3, 14) != photo(3, 15)
    assert len({photo(number, 14) for number in range(20)}) > 15
    assert len(seeds()) > 60
