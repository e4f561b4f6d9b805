"""Labels from folder names: photos in folders named after their quantities, `3/00121.jpg` or `train/3/00121.jpg`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from trainer.data.split import Split
from trainer.errors import DataError

SPLIT_FOLDERS = {
    "train": Split.TRAIN,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "validation": Split.VALIDATION,
    "test": Split.TEST,
}
"""Names of split folders, in lower case. Case is ignored."""
MAX_QUANTITY_DIGITS = 6
"""Maximum number of digits of a quantity folder: eight digits are more likely a date."""


@dataclass(frozen=True, slots=True)
class FolderLabel:
    """A photo's quantity and split, from its folders."""

    quantity: int
    split: Split | None
    """None if there are no split folders."""


def has_quantity_folders(photos: Path) -> bool:
    """Return whether `photos` contains quantity or split folders, without checking the photos in them."""
    return photos.is_dir() and any(
        _quantity(path.name) is not None or path.name.lower() in SPLIT_FOLDERS
        for path in photos.iterdir()
        if path.is_dir()
    )


def read_folder_labels(photos: Path, names: Mapping[str, PurePath]) -> dict[str, FolderLabel]:
    """Return key → label for the files `names` (key → path) in `photos`.

    Raises DataError if a photo is not in a quantity folder, or if only some photos are in split folders.
    """
    labels = {key: label for key, name in names.items() if (label := _folder_label(name))}
    if not labels:
        raise no_labels_error(photos)
    unlabelled = [name for key, name in names.items() if key not in labels]
    if unlabelled:
        raise DataError(
            f"{photos}: {unlabelled[0]} is not in a folder named after a quantity (such photos: {len(unlabelled):,});"
            " move it, or name the labels in an index (--index, data.index)"
        )
    unsplit = [names[key] for key, label in labels.items() if label.split is None]
    if 0 < len(unsplit) < len(labels):
        raise DataError(
            f"{photos}: {unsplit[0]} is in none of the folders {', '.join(SPLIT_FOLDERS)}, but other photos are"
            f" (such photos: {len(unsplit):,}); move it, or name labels and splits in an index (--index, data.index)"
        )
    return labels


def no_labels_error(photos: Path) -> DataError:
    """Return the error for photos without labels."""
    return DataError(
        f"{photos}: there are no labels; give an index, a CSV with a row per photo (--index, data.index), or put the"
        " photos into folders named after their quantities (0/, 1/, …; also in train/, valid/ and test/)"
    )


def _folder_label(name: PurePath) -> FolderLabel | None:
    parents = name.parts[:-1]
    quantity = _quantity(parents[-1]) if parents else None
    if quantity is None:
        return None
    match parents[:-1]:
        case ():
            return FolderLabel(quantity, None)
        case (split,) if split.lower() in SPLIT_FOLDERS:
            return FolderLabel(quantity, SPLIT_FOLDERS[split.lower()])
    return None


def _quantity(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdigit() and len(name) <= MAX_QUANTITY_DIGITS else None
