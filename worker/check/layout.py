"""Names of the list's sheets, and the columns of its first sheet. Quick to import, since it is needed first."""

from __future__ import annotations

from collections.abc import Sequence

from binwatch.counts import CLASSES
from binwatch.documents import P_VALUE_COLUMNS
from binwatch.errors import BinwatchError

BINS, FAILED = "bins", "failed"
UNEXPECTED, WITHOUT_PHOTO = "photos-without-expectation", "expectations-without-photo"
"""Slugs of the sheets. Each sheet except the first is written to a file named after its slug."""

_BIN_COLUMNS = ("verdict", "bin")
_PHOTO_COLUMNS = ("photo", "expected", "counted", "difference", "in words")
_MODEL_COLUMNS = (*P_VALUE_COLUMNS, *(f"p({name})" for name in CLASSES), "articles")


def bin_sheet_columns(kept: Sequence[str]) -> list[str]:
    """Return the columns of the sheet of bins, including the columns `kept` from the inventory file.

    Raises BinwatchError if two columns would have the same name.
    """
    names = {name.casefold() for name in (*_BIN_COLUMNS, *_PHOTO_COLUMNS, *_MODEL_COLUMNS)}
    for name in kept:
        normalised = name.strip().casefold()
        if normalised in names:
            raise BinwatchError(
                f"--keep-column {name}: the list has a column of that name; rename it in the inventory file"
            )
        names.add(normalised)
    return [*_BIN_COLUMNS, *kept, *_PHOTO_COLUMNS, *_MODEL_COLUMNS]
