"""Reads a data set with a progress bar, and warns about flaws in the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from binwatch.counts import CLASS_INDEXES, class_of, column_names
from binwatch.text import count_noun
from trainer.config import DataConfig
from trainer.data import index
from trainer.data.dataset import DataSet, PhotoSet, load_dataset, load_photos
from trainer.data.index import Row
from trainer.data.loader import Batch
from trainer.data.split import Split
from trainer.display import Display
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext

MAX_KEYS_IN_WARNING = 3
"""Maximum number of keys of one photo that a warning lists."""


def read_data(config: DataConfig, display: Display, context: DistributedContext = SINGLE_PROCESS) -> DataSet:
    """Read the data set and warn about its flaws. Photos that cannot be decoded are left out."""
    data = load_dataset(config, lambda keys: display.track(keys, len(keys), "checking photos"), context)
    report_left_out(config, data.missing, data.unreadable, display)
    counts = ", ".join(f"{len(data[split])} {split}" for split in Split)
    display.say(f"{counts} photos")
    _warn_about_missing_groups(config, display)
    _warn_about_split_groups(config, data, display)
    _warn_about_duplicates(config, data, display)
    return data


def read_photos(config: DataConfig, display: Display) -> tuple[PhotoSet, tuple[str, ...], dict[str, str]]:
    """Read all photos of a known class: see `load_photos`."""
    photos, missing, unreadable = load_photos(config, lambda keys: display.track(keys, len(keys), "checking photos"))
    report_left_out(config, missing, unreadable, display)
    return photos, missing, unreadable


def _warn_about_missing_groups(config: DataConfig, display: Display) -> None:
    reason = index.missing_groups_reason(config) if config.group_column else ""
    if reason:
        display.warn(
            f"{config.labels}: {reason}, so each photo is treated as a bin of its own. If some show the same bin,"
            " training and test photos may share bins, and the model looks better than it is. Give the bin of each"
            f" photo in a column {config.group_column} of an index, or, if every photo shows another bin, set"
            " data.group_column to nothing: --set data.group_column="
        )


def _warn_about_split_groups(config: DataConfig, data: DataSet, display: Display) -> None:
    """Warn if a split column divides the photos of a bin: a model recognises a bin that it was trained on."""
    groups = [set(data[split].groups) for split in Split]
    divided = sum(map(len, groups)) - len(set.union(*groups))
    if divided:
        display.warn(
            f"bin groups with photos in more than one split (column {config.split_column}): {divided:,};"
            " the model will look better than it is"
        )


def _warn_about_duplicates(config: DataConfig, data: DataSet, display: Display) -> None:
    """Warn if duplicates of a photo are in different splits (a model is then tested on training photos) or classes."""
    leaked = [rows for rows in data.duplicates if len({row.split for row in rows}) > 1]
    if leaked:
        grouped = config.index is not None and config.group_column
        advice = f"give copies the same {config.group_column}" if grouped else "keep one of each"
        display.warn(
            f"{config.labels}: photos in more than one split, under several keys: {len(leaked):,}"
            f" ({_keys_and_labels(leaked[0])}); the model will look better than it is; {advice}"
        )
    contradictory = [rows for rows in data.duplicates if len({class_of(row.quantity) for row in rows}) > 1]
    if contradictory:
        display.warn(
            f"{config.labels}: photos with several labels, under several keys: {len(contradictory):,}"
            f" ({_keys_and_labels(contradictory[0])}); at most one is right; audit them, or take them out"
        )


def _keys_and_labels(rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.key}: {row.label}" for row in rows[:MAX_KEYS_IN_WARNING])


_ABSENT_CLASS_PHOTOS = (
    "validation or test photo shows such a quantity, and counts",
    "validation and test photos show such quantities, and count",
)


def warn_about_absent_classes(config: DataConfig, data: DataSet, display: Display) -> None:
    """Warn about classes that no training photo shows. The Udacity capstone's list, for example, has no 0."""
    absent = [index for index in CLASS_INDEXES if index not in data.classes]
    if not absent:
        return
    counted_wrong = sum(int(np.isin(data[split].labels, absent).sum()) for split in (Split.VALIDATION, Split.TEST))
    wrong = f"; {count_noun(counted_wrong, *_ABSENT_CLASS_PHOTOS)} as wrong" if counted_wrong else ""
    display.warn(
        f"{config.labels}: no training photo shows {column_names(absent)} items: the model will not be able to predict"
        f" these{wrong}; add photos that show them: `prepare --per-class N` fetches N of each class,"
        " `prepare --list FILE --balance` as many of each class as the list has of its most common one"
    )


def report_left_out(
    config: DataConfig, missing: Sequence[str], unreadable: Mapping[str, str], display: Display
) -> None:
    """Print which photos cannot be decoded, and why, and how many photos of the index are missing."""
    for key, reason in unreadable.items():
        display.say(f"left out: {key}: {reason}")
    if missing:
        display.say(f"left out: photos that are in the index but not in {config.photos}: {len(missing):,}")


def track(display: Display, batches: Iterator[Batch], photos: int, description: str) -> Iterator[Batch]:
    """Yield batches with a progress bar."""
    return display.track(batches, photos, description, lambda batch: batch.photos)
