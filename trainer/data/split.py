"""Train, validation and test splits, 80/10/10 by bin group.

A group's split depends only on its name and the seed. It stays the same when photos are added, and photos of one group
(often one bin before and after an item was moved) are always in the same split.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

ALL_PHOTOS = "all"
"""Name of the set of all photos of an index, in place of a split."""


class Split(StrEnum):
    """The part of the data set to which a photo belongs."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def split_of(group: str, seed: int = 0) -> Split:
    """Return the split of a bin group, from a hash of its name modulo ten."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    tenth = int.from_bytes(digest[:8], "big") % 10
    if tenth == 0:
        return Split.TEST
    return Split.VALIDATION if tenth == 1 else Split.TRAIN
