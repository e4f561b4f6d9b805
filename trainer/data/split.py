"""Train, validation and test, 80/10/10 by bin group.

A group's split depends only on its name and the seed. So it stays the same when photos are added, and photos of one
group (often one bin before and after an item was moved) are always in the same split.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

ALL = "all"
"""In place of a split: every photo of an index."""


class Split(StrEnum):
    """Which part of the data set a photo belongs to."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def split_of(group: str, seed: int = 0) -> Split:
    """The split of a bin group: a hash of its name, spread evenly over ten parts."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    tenth = int.from_bytes(digest[:8], "big") % 10
    if tenth == 0:
        return Split.TEST
    return Split.VALIDATION if tenth == 1 else Split.TRAIN
