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
"""Names of the folders above, in any case."""
DIGITS = 6
"""Of the longest name that is a quantity: eight are a date."""


@dataclass(frozen=True, slots=True)
class FolderLabel:
    """What the folders say of a photo."""

    quantity: int
    split: Split | None
    """None if there are no folders of splits."""


def holds_quantities(photos: Path) -> bool:
    """Whether `photos` looks like this layout from above; its photos are not looked at."""
    return photos.is_dir() and any(
        _quantity(found.name) is not None or found.name.lower() in SPLITS
        for found in photos.iterdir()
        if found.is_dir()
    )


def places(photos: Path, names: Mapping[str, PurePath]) -> dict[str, FolderLabel]:
    """Key → what its folders say, of the files `names` within `photos`. Raises DataError if one lies elsewhere."""
    found = {key: place for key, name in names.items() if (place := _place(name))}
    if not found:
        raise no_index(photos)
    strays = [name for key, name in names.items() if key not in found]
    if strays:
        raise DataError(
            f"{photos}: {strays[0]} lies in no folder named after a quantity (such photos: {len(strays):,});"
            " move it, or name the labels in an index (--index, data.index)"
        )
    without = [names[key] for key, place in found.items() if place.split is None]
    if 0 < len(without) < len(found):
        raise DataError(
            f"{photos}: {without[0]} is below none of the folders {', '.join(SPLITS)}, as others are (such photos:"
            f" {len(without):,}); move it, or name labels and splits in an index (--index, data.index)"
        )
    return found


def no_index(photos: Path) -> DataError:
    """Where neither index nor folders say what photos show."""
    return DataError(
        f"{photos}: what do these photos show? Give an index, a CSV with a row per photo (--index, data.index), or put"
        " photos into folders named after their quantities (0/, 1/, …; also below train/, valid/ and test/)"
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
