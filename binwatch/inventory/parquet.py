"""Reads columns of a Parquet file as rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from binwatch.errors import BinwatchError
from binwatch.inventory.columns import ColumnNames, columns_error, find_columns
from binwatch.inventory.tables import Cells, Table, cell_text

_BATCH_ROWS = 10_000
_SMALL_BATCH_ROWS = 1000
_DICTIONARY_ENCODINGS = frozenset({"BIT_PACKED", "PLAIN", "PLAIN_DICTIONARY", "RLE", "RLE_DICTIONARY"})
_MAX_CELL_CHARACTERS = 1000
"""Length to which Parquet cells are cut. Bins and quantities are shorter."""
MAX_COLUMN_BYTES = 2**27
"""Maximum uncompressed size of a column in a row group. The ids of a million bins take a tenth of it."""


def open_parquet(file: Path, names: ColumnNames) -> Table:
    """Open the file as a table. Raises BinwatchError if columns are missing or of an unsuitable type."""
    with _open_parquet(file) as table:
        header = table.schema_arrow.names
        columns = find_columns(header, names)
        if columns is None:
            raise columns_error(file, header, names)
        required = [header[i] for i in (columns.bin, columns.quantity, columns.article) if i is not None]
        for position, name in enumerate(required):
            kind = table.schema_arrow.field(name).type
            if position == 0 and not _is_text(kind):
                reason = "not text: as numbers, 00121 and 121 would be the same bin"
                raise BinwatchError(f"{file}: column {name!r} holds {kind}, {reason}")
            if not _is_quantity(kind):
                raise BinwatchError(f"{file}: column {name!r} holds {kind}, neither numbers nor text")
        kept = [header[i] for i in columns.kept]
        _check_size(file, table, required + kept)
        encoded = [name for name in required + kept if _supports_dictionary(table, name)]
    rows = partial(_read_rows, file, required, kept, encoded)
    return Table(columns.description, rows, columns.article is not None)


def _read_rows(file: Path, required: list[str], kept: list[str], encoded: list[str]) -> Iterator[Cells]:
    """Yield the rows; `encoded` names the columns that are read with dictionary encoding.

    With dictionary encoding, a text that a million rows repeat is stored once. Without it, small batches limit the
    memory.
    """
    row = 0
    with _open_parquet(file, read_dictionary=encoded) as table:
        try:
            for batch in table.iter_batches(_BATCH_ROWS if encoded else _SMALL_BATCH_ROWS, columns=[*required, *kept]):
                for values in zip(*(_values(batch[name]) for name in required + kept), strict=True):
                    row += 1
                    name, quantity, *article = values[: len(required)]
                    is_number = quantity is not None and not isinstance(quantity, str)
                    amount = float(quantity) if is_number else _text(quantity)
                    kept_texts = tuple(map(_text, values[len(required) :]))
                    yield Cells(row, _text(name), amount, "".join(map(_text, article)), kept_texts)
        except (OSError, ValueError) as error:  # bases of pyarrow's errors
            raise BinwatchError(f"{file}: is damaged after row {row} ({error}); write it again") from error


def _check_size(file: Path, table: Any, names: list[str]) -> None:
    """Raise BinwatchError if a column is too large, since a few kilobytes may decompress to gigabytes."""
    for index in range(table.metadata.num_row_groups):
        group = table.metadata.row_group(index)
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema in names and column.total_uncompressed_size > MAX_COLUMN_BYTES:
                raise BinwatchError(
                    f"{file}: column {column.path_in_schema!r} has {column.total_uncompressed_size:,} bytes in one row"
                    f" group, over the limit of {MAX_COLUMN_BYTES:,}; write it in row groups of 100,000 rows"
                )


def _supports_dictionary(table: Any, name: str) -> bool:
    """Return whether a text column can be read with dictionary encoding, which pyarrow supports for some encodings."""
    groups = [table.metadata.row_group(index) for index in range(table.metadata.num_row_groups)]
    columns = [column for group in groups for column in map(group.column, range(group.num_columns))]
    encodings = {encoding for column in columns if column.path_in_schema == name for encoding in column.encodings}
    return _is_text(table.schema_arrow.field(name).type) and encodings <= _DICTIONARY_ENCODINGS


def _values(column: Any) -> list[object]:
    """Return the values of a column, with texts cut to _MAX_CELL_CHARACTERS."""
    from pyarrow import DictionaryArray, compute, types

    if types.is_string(column.type) or types.is_large_string(column.type):
        column = column.dictionary_encode()
    if not isinstance(column, DictionaryArray):
        return list(column.to_pylist())
    used = column.indices.unique().drop_null()
    cut = compute.utf8_slice_codeunits  # type: ignore[attr-defined]  # pyarrow defines it dynamically
    limit = _MAX_CELL_CHARACTERS
    texts = cut(column.dictionary.take(used), 0, limit + 1).to_pylist()
    cut_texts = (text if text is None or len(text) <= limit else text[:limit] + "…" for text in texts)
    values = dict(zip(used.to_pylist(), cut_texts, strict=True))
    return [values.get(index) for index in column.indices.to_pylist()]  # None for NULL


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
        raise BinwatchError(f"{file}: is not a Parquet file ({error}); write it again or give a CSV") from error


def _is_text(kind: Any) -> bool:
    return str(kind) in {"string", "large_string", "string_view"} or str(kind).startswith("dictionary<values=string")


def _is_quantity(kind: Any) -> bool:
    from pyarrow import types

    predicates = (types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    return _is_text(kind) or any(is_kind(kind) for is_kind in predicates)


def _text(value: Any) -> str:
    return "" if value is None else cell_text(value)
