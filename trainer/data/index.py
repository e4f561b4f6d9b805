"""The index CSV: which photo shows how many items, and which photos belong together."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from binwatch.errors import shown
from binwatch.keys import bin_id
from binwatch.numbers import whole
from binwatch.spreadsheets import original
from trainer.config import DataConfig
from trainer.data.split import Split, split_of
from trainer.errors import DataError

COLUMNS_NAMED = 20
MOST = 1_000_000
"""Items that a label may name: a number of twelve digits is an article's, in the wrong column."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled photo: `quantity` items, in a bin that it may share with other photos of the same `group`."""

    key: str
    quantity: int
    group: str
    split: Split


def read_index(config: DataConfig) -> list[Row]:
    """All rows, sorted by key. Raises DataError naming the file, line and column."""
    try:
        with config.index.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)  # or a quotation mark that is not closed takes all that follows
            _check_columns(config, reader.fieldnames or ())
            rows = [_row(config, reader.line_num, record) for record in reader]
    except OSError as error:
        raise _unreadable(config, error) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{config.index}: is not a CSV in UTF-8 ({error})") from error
    _check_keys(config, rows)
    return sorted(rows, key=lambda row: row.key)


def check_there(config: DataConfig) -> None:
    """Raise DataError if there is no such file, without reading it."""
    try:
        config.index.stat()
    except OSError as error:
        raise _unreadable(config, error) from error


def digest(config: DataConfig) -> str:
    """SHA-256 of the file. Raises DataError."""
    try:
        return hashlib.sha256(config.index.read_bytes()).hexdigest()
    except OSError as error:
        raise _unreadable(config, error) from error


def _unreadable(config: DataConfig, error: OSError) -> DataError:
    return DataError(f"{config.index}: cannot be read ({error.strerror})")


def _check_columns(config: DataConfig, found: Iterable[str]) -> None:
    have = list(found)
    for option in ("key_column", "label_column", "group_column", "split_column"):
        column = getattr(config, option)
        if column and column not in have:
            raise DataError(
                f"{config.index}: no column {column!r} (there is: {', '.join(have[:COLUMNS_NAMED]) or 'nothing'});"
                f" add it or set data.{option}"
            )


def _row(config: DataConfig, line: int, record: dict[str, str | None]) -> Row:
    key = bin_id(original(record[config.key_column] or ""))
    label = record[config.label_column]
    group = original(record[config.group_column] or "")
    if not key or not group:
        missing = config.group_column if key else config.key_column
        raise DataError(f"{config.index}, line {line}: {missing} is empty")
    quantity = whole(label or "")
    if quantity is None:
        raise DataError(f"{config.index}, line {line}: label {shown(label)} of {key[:60]} is not a whole number")
    if quantity < 0:
        raise DataError(f"{config.index}, line {line}: label {quantity} of {key} is negative")
    if quantity > MOST:
        raise DataError(f"{config.index}, line {line}: label {quantity} of {key} is no number of items in a bin")
    return Row(key, quantity, group, _split(config, line, record, group))


def _split(config: DataConfig, line: int, record: dict[str, str | None], group: str) -> Split:
    if not config.split_column:
        return split_of(group, config.split_seed)
    value = record[config.split_column]
    try:
        return Split(value or "")
    except ValueError:
        raise DataError(
            f"{config.index}, line {line}: {config.split_column} is {shown(value)}, not one of {', '.join(Split)}"
        ) from None


def _check_keys(config: DataConfig, rows: list[Row]) -> None:
    if not rows:
        raise DataError(f"{config.index}: has no rows")
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            raise DataError(f"{config.index}: {row.key} is listed twice; keep one label per photo")
        seen.add(row.key)
