"""Reads a data set and prints warnings about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from binwatch.counts import EVERY, class_of, names_of
from binwatch.text import many
from trainer.config import DataConfig
from trainer.data import index
from trainer.data.dataset import DataSet, PhotoSet, load_dataset, load_photos
from trainer.data.index import Row
from trainer.data.loader import Batch
from trainer.data.split import Split
from trainer.display import Display
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext

COPIES_NAMED = 3
"""Keys of one photo that a warning names."""


def read_data(config: DataConfig, display: Display, context: DistributedContext = SINGLE_PROCESS) -> DataSet:
    """The data set. Each photo is decoded once, and photos that cannot be decoded are left out."""
    data = load_dataset(config, lambda keys: display.track(keys, len(keys), "checking photos"), context)
    say_left_out(config, data.missing, data.unreadable, display)
    counts = ", ".join(f"{len(data[split])} {split}" for split in Split)
    display.say(f"{counts} photos")
    _warn_of_no_groups(config, display)
    _warn_of_parted_groups(config, data, display)
    _warn_of_copies(config, data, display)
    return data


def read_photos(config: DataConfig, display: Display) -> tuple[PhotoSet, tuple[str, ...], dict[str, str]]:
    """Every photo that can be decoded; keys without a photo; keys that cannot be decoded → why."""
    found = load_photos(config, lambda keys: display.track(keys, len(keys), "checking photos"))
    _, missing, unreadable = found
    say_left_out(config, missing, unreadable, display)
    return found


def _warn_of_no_groups(config: DataConfig, display: Display) -> None:
    reason = index.without_groups(config) if config.group_column else ""
    if reason:
        display.warn(
            f"{config.labels}: {reason}, so each photo is treated as a bin of its own. If some show the same bin,"
            " training and test photos may share bins, and the model looks better than it is. Give the bin of each"
            f" photo in a column {config.group_column} of an index, or, if every photo shows another bin, set"
            " data.group_column to nothing: --set data.group_column="
        )


def _warn_of_parted_groups(config: DataConfig, data: DataSet, display: Display) -> None:
    """A column of splits may divide the photos of one bin, and a model recognises a bin that it was trained on."""
    groups = [set(data[split].groups) for split in Split]
    parted = sum(map(len, groups)) - len(set.union(*groups))
    if parted:
        display.warn(
            f"bin groups with photos in more than one split (column {config.split_column}): {parted:,};"
            " the model will look better than it is"
        )


def _warn_of_copies(config: DataConfig, data: DataSet, display: Display) -> None:
    """Copies of a photo in two splits: the model is tested on photos that it was trained on."""
    parted = [same for same in data.copies if len({row.split for row in same}) > 1]
    if parted:
        grouped = config.index is not None and config.group_column
        advice = f"give copies the same {config.group_column}" if grouped else "keep one of each"
        display.warn(
            f"{config.labels}: photos in more than one split, under several keys: {len(parted):,}"
            f" ({_named(parted[0])}); the model will look better than it is; {advice}"
        )
    contradictory = [same for same in data.copies if len({class_of(row.quantity) for row in same}) > 1]
    if contradictory:
        display.warn(
            f"{config.labels}: photos with several labels, under several keys: {len(contradictory):,}"
            f" ({_named(contradictory[0])}); at most one is right; audit them, or take them out"
        )


def _named(same: Sequence[Row]) -> str:
    return ", ".join(f"{row.key}: {row.label}" for row in same[:COPIES_NAMED])


_SHOW = (
    "validation or test photo shows such a quantity, and counts",
    "validation and test photos show such quantities, and count",
)


def warn_of_absent_classes(config: DataConfig, data: DataSet, display: Display) -> None:
    """A model cannot learn classes that no training photo shows. The Udacity capstone's list, for example, has no 0."""
    absent = [index for index in EVERY if index not in data.classes]
    if not absent:
        return
    held_out = sum(int(np.isin(data[split].labels, absent).sum()) for split in (Split.VALIDATION, Split.TEST))
    wrong = f"; {many(held_out, *_SHOW)} as wrong" if held_out else ""
    display.warn(
        f"{config.labels}: no training photo shows {names_of(absent)} items: the model will not be able to predict"
        f" these{wrong}; add photos that show them: `prepare --per-class N` fetches N of each class,"
        " `prepare --list FILE --balance` as many of each class as the list has of its most common one"
    )


def say_left_out(config: DataConfig, missing: Sequence[str], unreadable: Mapping[str, str], display: Display) -> None:
    """Print which photos of the index cannot be used."""
    for key, reason in unreadable.items():
        display.say(f"left out: {key}: {reason}")
    if missing:
        display.say(f"left out: photos that are in the index but not in {config.photos}: {len(missing):,}")


def follow(display: Display, batches: Iterator[Batch], photos: int, what: str) -> Iterator[Batch]:
    """Batches with a progress bar."""
    return display.track(batches, photos, what, lambda batch: batch.photos)
