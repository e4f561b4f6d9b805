"""Rows of a CSV or Parquet file, as text, with where they stand."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from binwatch.errors import BinwatchError
from binwatch.spreadsheets import original

COLUMNS = ("bin", "quantity")
_PARQUET = (".parquet", ".pq")
_BATCH = 10_000


class Cells(NamedTuple):
    """One row. `row` counts from 1 and is the line in an editor for a CSV, whose header is row 1."""

    row: int
    bin: str
    quantity: str


def read_rows(file: Path) -> Iterator[Cells]:
    """All rows, read as they are needed. Raises BinwatchError if the file is not what its name says."""
    return _parquet(file) if file.suffix.lower() in _PARQUET else _csv(file)


def _csv(file: Path) -> Iterator[Cells]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, strict=True)
            at = _columns(file, next(reader, []))
            for row in reader:
                if row:  # an empty line says nothing
                    cells = (original(row[index]) if index < len(row) else "" for index in at)
                    yield Cells(reader.line_num, *cells)
    except OSError as error:
        raise BinwatchError(f"{file}: cannot be read ({error.strerror}); name a CSV or Parquet file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise BinwatchError(f"{file}: is no CSV in UTF-8 ({error}); save it as one") from error


def _columns(file: Path, header: Iterable[str]) -> list[int]:
    names = [name.strip().lower() for name in header]
    for column in COLUMNS:
        if column not in names:
            found = ", ".join(map(repr, names[:10])) or "nothing"
            raise BinwatchError(f"{file}: no column {column!r} in its first line, only {found}; name the columns there")
    return [names.index(column) for column in COLUMNS]


def _parquet(file: Path) -> Iterator[Cells]:
    table = _open_parquet(file)
    names = {name.lower(): name for name in table.schema_arrow.names}
    at = _columns(file, names)
    bin_name, quantity_name = (names[list(names)[index]] for index in at)
    if not _is_text(table.schema_arrow.field(bin_name).type):
        raise BinwatchError(f"{file}: column 'bin' holds no text, and as numbers 00121 and 121 would be one bin")
    row = 0
    try:
        for batch in table.iter_batches(_BATCH, columns=[bin_name, quantity_name]):
            for name, quantity in zip(batch[bin_name].to_pylist(), batch[quantity_name].to_pylist(), strict=True):
                row += 1
                yield Cells(row, _text(name), _text(quantity))
    except (OSError, ValueError) as error:  # pyarrow's errors are these
        raise BinwatchError(f"{file}: is damaged after row {row} ({error}); write it again") from error


def _open_parquet(file: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile  # large and optional
    except ImportError as error:
        raise BinwatchError(
            f"{file}: Parquet needs pyarrow; install Binwatch with the extra parquet, or give a CSV"
        ) from error
    try:
        return ParquetFile(file)
    except (OSError, ValueError) as error:
        raise BinwatchError(f"{file}: is no Parquet file ({error}); write it again or give a CSV") from error


def _is_text(kind: Any) -> bool:
    return str(kind) in {"string", "large_string", "string_view"} or str(kind).startswith("dictionary<values=string")


def _text(value: object) -> str:
    return "" if value is None else str(value)
