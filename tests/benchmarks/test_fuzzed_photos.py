"""A fixed set of mutated photos: none crashes the process, raises anything but PhotoError, or uses much memory.

`python -m benchmarks.fuzz_photos` tests any number of further mutations.
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


def test_a_fuzzed_photo_is_reproducible_by_its_number() -> None:
    assert photo(3, 14) == photo(3, 14) != photo(3, 15)
    assert len({photo(number, 14) for number in range(20)}) > 15
    assert len(seeds()) > 60
