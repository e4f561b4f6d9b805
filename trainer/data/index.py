"""Labels: the number of items in each photo and its bin group, from an index CSV, a class list, or folder names."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from binwatch.counts import MORE_THAN_5
from binwatch.errors import quote_value
from binwatch.keys import normalise_bin_id
from binwatch.numbers import parse_int
from binwatch.safe_csv import unescape_formula
from trainer.config import GROUP_COLUMN, DataConfig
from trainer.data import class_lists, folders
from trainer.data.source import open_source
from trainer.data.split import Split, split_of
from trainer.errors import DataError

MAX_COLUMNS_IN_ERROR = 20
"""Maximum number of columns that an error message lists."""
MAX_QUANTITY = 1_000_000
"""Maximum number of items in a label: twelve digits are more likely an article number in the wrong column."""


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled photo of `quantity` items. Photos of the same `group` may show the same bin."""

    key: str
    quantity: int
    group: str
    split: Split
    at_least: bool = False
    """Whether the photo shows `quantity` items or more."""

    @property
    def label(self) -> str:
        """The label as written in an index."""
        return f"{self.quantity}+" if self.at_least else str(self.quantity)

    @property
    def has_known_class(self) -> bool:
        """Whether the label determines the class: "3 or more" does not."""
        return not self.at_least or self.quantity >= MORE_THAN_5


def read_index(config: DataConfig) -> list[Row]:
    """Read all rows, sorted by key. Raises DataError, which names the file, line and column."""
    if config.index is None:
        return _rows_from_folders(config)
    if _is_class_list(config.index):
        return _rows_from_class_list(config, config.index)
    with _open_csv(config.index) as reader:
        _check_columns(config, reader.fieldnames or ())
        rows = [_parse_row(config, reader.line_num, record) for record in reader]
    _check_unique_keys(config, rows)
    return sorted(rows, key=lambda row: row.key)


def check_exists(config: DataConfig) -> None:
    """Raise DataError if there are no labels, without reading them."""
    if config.index is None:
        if config.photos.is_dir() and not folders.has_quantity_folders(config.photos):
            raise folders.no_labels_error(config.photos)
        return
    check_index_file(config.index)


def check_index_file(index: Path) -> None:
    """Raise DataError if the file `index` does not exist, without reading it."""
    try:
        index.stat()
    except OSError as error:
        raise _read_error(index, error) from error


def digest(config: DataConfig) -> str:
    """Return the SHA-256 of the index file, or of the labels from folders. Raises DataError."""
    if config.index is None:
        return hashlib.sha256(repr(_rows_from_folders(config)).encode()).hexdigest()
    try:
        return hashlib.sha256(config.index.read_bytes()).hexdigest()
    except OSError as error:
        raise _read_error(config.index, error) from error


def has_groups(config: DataConfig) -> bool:
    """Return whether the bin groups of photos are known. If not, each photo is a group of its own."""
    return not missing_groups_reason(config)


def missing_groups_reason(config: DataConfig) -> str:
    """Return why the bin groups of photos are not known, for a message; empty if they are known."""
    if config.index is None:
        return "folders do not say which photos show the same bin"
    if _is_class_list(config.index):
        return "the list does not say which photos show the same bin"
    with _open_csv(config.index) as reader:
        grouped = config.group_column in (reader.fieldnames or ())
    return "" if grouped else f"there is no column {config.group_column}, which names the bin group of each photo"


def split_rule(config: DataConfig) -> str:
    """Describe how photos are split, for the model's card."""
    if config.split_column:
        return f"by the column {config.split_column}"
    if config.index is None and any(label.split for label in _folder_labels(config).values()):
        return "by the folders"
    by = f"bin group (column {config.group_column})" if has_groups(config) else "photo's key"
    return f"80/10/10 by a hash of the {by}, seed {config.split_seed}"


def _rows_from_folders(config: DataConfig) -> list[Row]:
    if config.split_column:
        raise DataError(
            f"data.split_column={config.split_column}: there is no index that could have this column; give one"
            " (--index, data.index), or put photos into train/, valid/ and test/"
        )
    labels = sorted(_folder_labels(config).items())
    return [Row(key, label.quantity, key, label.split or split_of(key, config.split_seed)) for key, label in labels]


def _is_class_list(index: Path) -> bool:
    return index.suffix.lower() == class_lists.SUFFIX


def _rows_from_class_list(config: DataConfig, index: Path) -> list[Row]:
    if config.split_column:
        raise DataError(
            f"data.split_column={config.split_column}: {index} has no columns; give a CSV, or no split column"
        )
    quantities = sorted(class_lists.read_class_list(index).items())
    return [Row(key, quantity, key, split_of(key, config.split_seed)) for key, quantity in quantities]


def _folder_labels(config: DataConfig) -> dict[str, folders.FolderLabel]:
    return folders.read_folder_labels(config.photos, open_source(config.photos).names())


@contextmanager
def _open_csv(index: Path) -> Iterator[csv.DictReader[str]]:
    try:
        with index.open(encoding="utf-8-sig", newline="") as file:
            yield csv.DictReader(file, strict=True)  # otherwise an unclosed quotation mark swallows all later rows
    except OSError as error:
        raise _read_error(index, error) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{index}: is not a CSV in UTF-8 ({error})") from error


def _read_error(index: Path, error: OSError) -> DataError:
    return DataError(f"{index}: cannot be read ({error.strerror})")


def _check_columns(config: DataConfig, columns: Sequence[str]) -> None:
    """Raise DataError if a configured column is missing. Only the default group column may be missing."""
    for option in ("key_column", "label_column", "group_column", "split_column"):
        column = getattr(config, option)
        if column and column not in columns and not (option == "group_column" and column == GROUP_COLUMN):
            raise DataError(
                f"{config.index}: no column {column!r}"
                f" (found: {', '.join(columns[:MAX_COLUMNS_IN_ERROR]) or 'nothing'});"
                f" add it or set data.{option}"
            )


def _parse_row(config: DataConfig, line: int, record: dict[str, str | None]) -> Row:
    key = normalise_bin_id(unescape_formula(record[config.key_column] or ""))
    label = record[config.label_column]
    grouped = config.group_column and config.group_column in record
    group = unescape_formula(record[config.group_column] or "") if grouped else key
    if not key or not group:
        missing = config.group_column if key else config.key_column
        raise DataError(f"{config.index}, line {line}: {missing} is empty")
    quantity, at_least = _parse_label(label or "")
    if quantity is None:
        raise DataError(
            f"{config.index}, line {line}: label {quote_value(label)} of {key[:60]} is not a whole number, nor one"
            " with a + (6+ means six items or more)"
        )
    if quantity < 0:
        raise DataError(f"{config.index}, line {line}: label {quantity} of {key} is negative")
    if quantity > MAX_QUANTITY:
        raise DataError(f"{config.index}, line {line}: label {quantity} of {key} is not a number of items in a bin")
    return Row(key, quantity, group, _parse_split(config, line, record, group), at_least)


def _parse_label(label: str) -> tuple[int | None, bool]:
    """Return the number of items (None if the label is not a number) and whether there may be more.

    `6+`, `>5` and `more than 5` have the same meaning.
    """
    text = label.strip()
    for prefix, suffix, offset in ((">", "", 1), ("more than ", "", 1), ("", "+", 0)):
        if text.startswith(prefix) and text.endswith(suffix):
            number = parse_int(text.removeprefix(prefix).removesuffix(suffix))
            return None if number is None else number + offset, True
    return parse_int(text), False


def _parse_split(config: DataConfig, line: int, record: dict[str, str | None], group: str) -> Split:
    if not config.split_column:
        return split_of(group, config.split_seed)
    value = record[config.split_column]
    try:
        return Split(value or "")
    except ValueError:
        raise DataError(
            f"{config.index}, line {line}: {config.split_column} is {quote_value(value)}, not one of {', '.join(Split)}"
        ) from None


def _check_unique_keys(config: DataConfig, rows: list[Row]) -> None:
    if not rows:
        raise DataError(f"{config.index}: has no rows")
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            raise DataError(f"{config.index}: {row.key} is listed twice; keep one label per photo")
        seen.add(row.key)
