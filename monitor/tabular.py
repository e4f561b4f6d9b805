"""Rows of a CSV or Parquet file, as text, with where they stand."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from binwatch.errors import BinwatchError
from binwatch.spreadsheets import original

COLUMNS = ("bin", "quantity")
_PARQUET = (".parquet", ".pq")
_BATCH = 10_000
_SMALL_BATCH = 1000
_DICTIONARY = frozenset({"BIT_PACKED", "PLAIN", "PLAIN_DICTIONARY", "RLE", "RLE_DICTIONARY"})
MAX_CELL = 1000
"""Characters of a Parquet cell that are read; no bin and no quantity has so many."""
MAX_ROW = 2**20
"""Characters of a CSV's row."""
MAX_COLUMN_BYTES = 2**27
"""Of a column in a row group of Parquet, unpacked. A million bins' ids are a tenth of it."""


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
            lines = _Lines(opened)
            reader = csv.reader(lines, strict=True)
            at = _columns(file, next(reader, []))
            for row in reader:
                lines.taken = 0
                if row:  # an empty line says nothing
                    cells = (original(row[index]) if index < len(row) else "" for index in at)
                    yield Cells(reader.line_num, *cells)
    except OSError as error:
        raise BinwatchError(f"{file}: cannot be read ({error.strerror}); name a CSV or Parquet file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise BinwatchError(f"{file}: is no CSV in UTF-8 ({error}); save it as one") from error


class _Lines(Iterator[str]):
    """Lines of a file. Raises csv.Error rather than read more than MAX_ROW characters for one row."""

    def __init__(self, opened: TextIO) -> None:
        self._opened = opened
        self.taken = 0
        """Characters since the last row ended, which whoever reads rows sets back."""

    def __next__(self) -> str:
        line = self._opened.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self.taken += len(line)
        if self.taken > MAX_ROW:
            raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
        return line


def _columns(file: Path, header: Iterable[str]) -> list[int]:
    names = [name.strip().lower() for name in header]
    for column in COLUMNS:
        if column not in names:
            found = ", ".join(map(repr, names[:10])) or "nothing"
            raise BinwatchError(f"{file}: no column {column!r} in its first line, only {found}; name the columns there")
    return [names.index(column) for column in COLUMNS]


def _parquet(file: Path) -> Iterator[Cells]:
    with _open_parquet(file) as table:
        names = {name.lower(): name for name in table.schema_arrow.names}
        at = _columns(file, names)
        wanted = [names[list(names)[index]] for index in at]
        for name, is_fit, need in zip(wanted, (_is_text, _is_quantity), _NEEDS, strict=True):
            kind = table.schema_arrow.field(name).type
            if not is_fit(kind):
                raise BinwatchError(f"{file}: column {name!r} holds {kind}, {need}")
        _check_size(file, table, wanted)
        packed = [name for name in wanted if _is_packed(table, name)]
    row = 0
    # As a dictionary, a text that a million rows repeat is held once; what is none is read in small pieces.
    with _open_parquet(file, read_dictionary=packed) as table:
        try:
            for batch in table.iter_batches(_BATCH if packed else _SMALL_BATCH, columns=wanted):
                for name, quantity in zip(*(_cut(batch[name]) for name in wanted), strict=True):
                    row += 1
                    yield Cells(row, _text(name), _text(quantity))
        except (OSError, ValueError) as error:  # pyarrow's errors are these
            raise BinwatchError(f"{file}: is damaged after row {row} ({error}); write it again") from error


_NEEDS = ("no text, and as numbers 00121 and 121 would be one bin", "neither numbers nor text")


def _check_size(file: Path, table: Any, names: list[str]) -> None:
    """Raise BinwatchError if one row group unpacks to more than this is made for: a few kilobytes may be gigabytes."""
    for number in range(table.metadata.num_row_groups):
        group = table.metadata.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema in names and column.total_uncompressed_size > MAX_COLUMN_BYTES:
                raise BinwatchError(
                    f"{file}: column {column.path_in_schema!r} has {column.total_uncompressed_size:,} bytes in one row"
                    f" group, over the limit of {MAX_COLUMN_BYTES:,}; write it in row groups of 100,000 rows"
                )


def _is_packed(table: Any, name: str) -> bool:
    """Whether a column of texts can be read as a dictionary, which pyarrow cannot do for all encodings."""
    groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
    columns = [column for group in groups for column in map(group.column, range(group.num_columns))]
    encodings = {encoding for column in columns if column.path_in_schema == name for encoding in column.encodings}
    return _is_text(table.schema_arrow.field(name).type) and encodings <= _DICTIONARY


def _cut(column: Any) -> list[object]:
    """The values, no text longer than MAX_CELL characters and an ellipsis."""
    from pyarrow import DictionaryArray, compute, types

    if types.is_string(column.type) or types.is_large_string(column.type):
        column = column.dictionary_encode()
    if not isinstance(column, DictionaryArray):
        return list(column.to_pylist())
    used = column.indices.unique().drop_null()
    cut = compute.utf8_slice_codeunits  # type: ignore[attr-defined]  # pyarrow makes it as it is imported
    texts = cut(column.dictionary.take(used), 0, MAX_CELL + 1).to_pylist()
    short = (text if text is None or len(text) <= MAX_CELL else text[:MAX_CELL] + "…" for text in texts)
    values = dict(zip(used.to_pylist(), short, strict=True))
    return [values.get(index) for index in column.indices.to_pylist()]  # None where there is no value


def _open_parquet(file: Path, **options: Any) -> Any:
    try:
        from pyarrow.parquet import ParquetFile  # large and optional
    except ImportError as error:
        raise BinwatchError(
            f"{file}: Parquet needs pyarrow; install Binwatch with the extra parquet, or give a CSV"
        ) from error
    try:
        return ParquetFile(file, **options)
    except (OSError, ValueError) as error:
        raise BinwatchError(f"{file}: is no Parquet file ({error}); write it again or give a CSV") from error


def _is_text(kind: Any) -> bool:
    return str(kind) in {"string", "large_string", "string_view"} or str(kind).startswith("dictionary<values=string")


def _is_quantity(kind: Any) -> bool:
    from pyarrow import types

    numbers = (types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    return _is_text(kind) or any(is_of_kind(kind) for is_of_kind in numbers)


def _text(value: object) -> str:
    return "" if value is None else str(value)
