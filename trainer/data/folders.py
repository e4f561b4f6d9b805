"""Photos in folders named after the quantities that they show: `3/00121.jpg`, or `train/3/00121.jpg`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from trainer.data.split import Split
from trainer.errors import DataError

SPLITS = {
    "train": Split.TRAIN,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "validation": Split.VALIDATION,
    "test": Split.TEST,
}
"""Names of the folders for splits, in upper or lower case."""
DIGITS = 6
"""Digits of the longest folder name that is a quantity: eight digits are a date."""


@dataclass(frozen=True, slots=True)
class FolderLabel:
    """A photo's quantity and split by its folders."""

    quantity: int
    split: Split | None
    """None if there are no folders for splits."""


def holds_quantities(photos: Path) -> bool:
    """Whether `photos` has folders named after quantities or splits; the photos in them are not checked."""
    return photos.is_dir() and any(
        _quantity(found.name) is not None or found.name.lower() in SPLITS
        for found in photos.iterdir()
        if found.is_dir()
    )


def places(photos: Path, names: Mapping[str, PurePath]) -> dict[str, FolderLabel]:
    """Key → quantity and split by folders, for the files `names` in `photos`. Raises DataError for any other folder."""
    found = {key: place for key, name in names.items() if (place := _place(name))}
    if not found:
        raise no_index(photos)
    strays = [name for key, name in names.items() if key not in found]
    if strays:
        raise DataError(
            f"{photos}: {strays[0]} is not in a folder named after a quantity (such photos: {len(strays):,});"
            " move it, or name the labels in an index (--index, data.index)"
        )
    without = [names[key] for key, place in found.items() if place.split is None]
    if 0 < len(without) < len(found):
        raise DataError(
            f"{photos}: {without[0]} is in none of the folders {', '.join(SPLITS)}, but other photos are (such photos:"
            f" {len(without):,}); move it, or name labels and splits in an index (--index, data.index)"
        )
    return found


def no_index(photos: Path) -> DataError:
    """The error for photos without labels."""
    return DataError(
        f"{photos}: there are no labels; give an index, a CSV with a row per photo (--index, data.index), or put the"
        " photos into folders named after their quantities (0/, 1/, …; also in train/, valid/ and test/)"
    )


def _place(name: PurePath) -> FolderLabel | None:
    above = name.parts[:-1]
    quantity = _quantity(above[-1]) if above else None
    if quantity is None:
        return None
    match above[:-1]:
        case ():
            return FolderLabel(quantity, None)
        case (split,) if split.lower() in SPLITS:
            return FolderLabel(quantity, SPLITS[split.lower()])
    return None


def _quantity(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdigit() and len(name) <= DIGITS else None
