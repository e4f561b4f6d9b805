"""Labels: the number of items in each photo, and its bin group.

They come from an index CSV, from a list of photos by quantity, or from folders.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from binwatch.counts import MORE_THAN_5
from binwatch.errors import quote_value
from binwatch.keys import normalize_bin_id
from binwatch.numbers import parse_int
from binwatch.safe_csv import unescape_formula
from trainer.config import GROUP_COLUMN, DataConfig
from trainer.data import class_lists, folders
from trainer.data.source import open_source
from trainer.data.split import Split, split_of
from trainer.errors import DataError

COLUMNS_NAMED = 20
MOST = 1_000_000
"""Largest number of items in a label: a number of twelve digits is an article number in the wrong column."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled photo of `quantity` items. Photos of the same `group` may show the same bin."""

    key: str
    quantity: int
    group: str
    split: Split
    at_least: bool = False
    """Whether the photo shows `quantity` items or more."""

    @property
    def label(self) -> str:
        """The label as it is written in an index."""
        return f"{self.quantity}+" if self.at_least else str(self.quantity)

    @property
    def of_a_class(self) -> bool:
        """Whether the photo's class is known: that of "3 or more" is not."""
        return not self.at_least or self.quantity >= MORE_THAN_5


def read_index(config: DataConfig) -> list[Row]:
    """All rows, sorted by key. Raises DataError naming the file, line and column."""
    if config.index is None:
        return _of_folders(config)
    if _is_class_list(config.index):
        return _of_class_list(config, config.index)
    with _reading(config.index) as reader:
        _check_columns(config, reader.fieldnames or ())
        rows = [_row(config, reader.line_num, record) for record in reader]
    _check_keys(config, rows)
    return sorted(rows, key=lambda row: row.key)


def check_there(config: DataConfig) -> None:
    """Raise DataError if there are no labels, without reading them."""
    if config.index is None:
        if config.photos.is_dir() and not folders.holds_quantities(config.photos):
            raise folders.no_index(config.photos)
        return
    check_file(config.index)


def check_file(index: Path) -> None:
    """Raise DataError if there is no such index, without reading it."""
    try:
        index.stat()
    except OSError as error:
        raise _unreadable(index, error) from error


def digest(config: DataConfig) -> str:
    """SHA-256 of the file, or of the labels by folders. Raises DataError."""
    if config.index is None:
        return hashlib.sha256(repr(_of_folders(config)).encode()).hexdigest()
    try:
        return hashlib.sha256(config.index.read_bytes()).hexdigest()
    except OSError as error:
        raise _unreadable(config.index, error) from error


def names_groups(config: DataConfig) -> bool:
    """Whether the bin groups of photos are known. If not, each photo is a group of its own."""
    return not without_groups(config)


def without_groups(config: DataConfig) -> str:
    """Why the bin groups of photos are not known, for a message; empty if they are."""
    if config.index is None:
        return "folders do not say which photos show the same bin"
    if _is_class_list(config.index):
        return "the list does not say which photos show the same bin"
    with _reading(config.index) as reader:
        named = config.group_column in (reader.fieldnames or ())
    return "" if named else f"there is no column {config.group_column}, which names the bin group of each photo"


def split_rule(config: DataConfig) -> str:
    """How photos are split, for the model's card."""
    if config.split_column:
        return f"by the column {config.split_column}"
    if config.index is None and any(place.split for place in _places(config).values()):
        return "by the folders"
    by = f"bin group (column {config.group_column})" if names_groups(config) else "photo's key"
    return f"80/10/10 by a hash of the {by}, seed {config.split_seed}"


def _of_folders(config: DataConfig) -> list[Row]:
    if config.split_column:
        raise DataError(
            f"data.split_column={config.split_column}: there is no index that could have this column; give one"
            " (--index, data.index), or put photos into train/, valid/ and test/"
        )
    found = sorted(_places(config).items())
    return [Row(key, at.quantity, key, at.split or split_of(key, config.split_seed)) for key, at in found]


def _is_class_list(index: Path) -> bool:
    return index.suffix.lower() == class_lists.SUFFIX


def _of_class_list(config: DataConfig, index: Path) -> list[Row]:
    if config.split_column:
        raise DataError(
            f"data.split_column={config.split_column}: {index} has no columns; give a CSV, or no split column"
        )
    found = sorted(class_lists.read_class_list(index).items())
    return [Row(key, quantity, key, split_of(key, config.split_seed)) for key, quantity in found]


def _places(config: DataConfig) -> dict[str, folders.FolderLabel]:
    return folders.places(config.photos, open_source(config.photos).names())


@contextmanager
def _reading(index: Path) -> Iterator[csv.DictReader[str]]:
    try:
        with index.open(encoding="utf-8-sig", newline="") as file:
            yield csv.DictReader(file, strict=True)  # else a quotation mark that is not closed swallows all later rows
    except OSError as error:
        raise _unreadable(index, error) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{index}: is not a CSV in UTF-8 ({error})") from error


def _unreadable(index: Path, error: OSError) -> DataError:
    return DataError(f"{index}: cannot be read ({error.strerror})")


def _check_columns(config: DataConfig, found: Iterable[str]) -> None:
    """Raises DataError if a configured column is missing. Only the default column of groups may be missing."""
    have = list(found)
    for option in ("key_column", "label_column", "group_column", "split_column"):
        column = getattr(config, option)
        if column and column not in have and not (option == "group_column" and column == GROUP_COLUMN):
            raise DataError(
                f"{config.index}: no column {column!r} (found: {', '.join(have[:COLUMNS_NAMED]) or 'nothing'});"
                f" add it or set data.{option}"
            )


def _row(config: DataConfig, line: int, record: dict[str, str | None]) -> Row:
    key = normalize_bin_id(unescape_formula(record[config.key_column] or ""))
    label = record[config.label_column]
    grouped = config.group_column and config.group_column in record
    group = unescape_formula(record[config.group_column] or "") if grouped else key
    if not key or not group:
        missing = config.group_column if key else config.key_column
        raise DataError(f"{config.index}, line {line}: {missing} is empty")
    quantity, at_least = _quantity(label or "")
    if quantity is None:
        raise DataError(
            f"{config.index}, line {line}: label {quote_value(label)} of {key[:60]} is not a whole number, nor one"
            " with a + (6+ means six items or more)"
        )
    if quantity < 0:
        raise DataError(f"{config.index}, line {line}: label {quantity} of {key} is negative")
    if quantity > MOST:
        raise DataError(f"{config.index}, line {line}: label {quantity} of {key} is not a number of items in a bin")
    return Row(key, quantity, group, _split(config, line, record, group), at_least)


def _quantity(label: str) -> tuple[int | None, bool]:
    """Items (None if the label is no number), and whether there may be more. `6+`, `>5` and `more than 5` are equal."""
    text = label.strip()
    for before, after, more in ((">", "", 1), ("more than ", "", 1), ("", "+", 0)):
        if text.startswith(before) and text.endswith(after):
            fewest = parse_int(text.removeprefix(before).removesuffix(after))
            return None if fewest is None else fewest + more, True
    return parse_int(text), False


def _split(config: DataConfig, line: int, record: dict[str, str | None], group: str) -> Split:
    if not config.split_column:
        return split_of(group, config.split_seed)
    value = record[config.split_column]
    try:
        return Split(value or "")
    except ValueError:
        raise DataError(
            f"{config.index}, line {line}: {config.split_column} is {quote_value(value)}, not one of {', '.join(Split)}"
        ) from None


def _check_keys(config: DataConfig, rows: list[Row]) -> None:
    if not rows:
        raise DataError(f"{config.index}: has no rows")
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            raise DataError(f"{config.index}: {row.key} is listed twice; keep one label per photo")
        seen.add(row.key)
