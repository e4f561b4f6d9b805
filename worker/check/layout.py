"""The sheets of the list, and the columns of its bins. Quick to import, since it is needed first."""

from __future__ import annotations

from collections.abc import Sequence

from binwatch.counts import CLASSES
from binwatch.documents import P_VALUE_COLUMNS
from binwatch.errors import BinwatchError

BINS, FAILED = "bins", "failed"
UNEXPECTED, WITHOUT_PHOTO = "photos-without-expectation", "expectations-without-photo"
"""Slugs of the sheets. The files of all sheets but the first are named after them."""

_OF_BIN = ("verdict", "bin")
_OF_PHOTO = ("photo", "expected", "counted", "difference", "in words")
_OF_MODEL = (*P_VALUE_COLUMNS, *(f"p({name})" for name in CLASSES), "articles")


def columns(kept: Sequence[str]) -> list[str]:
    """Columns of the bins, with the `kept` columns of the inventory file.

    Raises BinwatchError if two columns would have the same name.
    """
    own = [*_OF_BIN, *_OF_PHOTO, *_OF_MODEL]
    for at, name in enumerate(kept):
        if name.strip().casefold() in [other.strip().casefold() for other in (*own, *kept[:at])]:
            raise BinwatchError(
                f"--keep-column {name}: the list has a column of that name; rename it in the inventory file"
            )
    return [*_OF_BIN, *kept, *_OF_PHOTO, *_OF_MODEL]
