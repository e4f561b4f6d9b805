"""Reads columns of a Parquet file as rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from binwatch.errors import BinwatchError
from binwatch.inventory.columns import ColumnNames, explain, find_columns
from binwatch.inventory.tables import Cells, Table, text_of

_BATCH = 10_000
_SMALL_BATCH = 1000
_DICTIONARY = frozenset({"BIT_PACKED", "PLAIN", "PLAIN_DICTIONARY", "RLE", "RLE_DICTIONARY"})
MAX_CELL = 1000
"""Characters after which a Parquet cell is cut; bins and quantities are shorter."""
MAX_COLUMN_BYTES = 2**27
"""Most uncompressed bytes of a column in a row group. The ids of a million bins take a tenth of it."""


def open_parquet(file: Path, named: ColumnNames) -> Table:
    """The table. Raises BinwatchError if columns are missing or of an unsuitable type."""
    with _open_parquet(file) as table:
        names = table.schema_arrow.names
        columns = find_columns(names, named)
        if columns is None:
            raise explain(file, names, named)
        wanted = [names[at] for at in (columns.bin, columns.quantity, columns.article) if at is not None]
        for name, is_fit, need in zip(wanted, (_is_text, _is_quantity, _is_quantity), _NEEDS, strict=False):
            kind = table.schema_arrow.field(name).type
            if not is_fit(kind):
                raise BinwatchError(f"{file}: column {name!r} holds {kind}, {need}")
        kept = [names[at] for at in columns.kept]
        _check_size(file, table, wanted + kept)
        packed = [name for name in wanted + kept if _is_packed(table, name)]
    return Table(columns.said, partial(_rows, file, wanted, kept, packed), columns.article is not None)


def _rows(file: Path, wanted: list[str], kept: list[str], packed: list[str]) -> Iterator[Cells]:
    row = 0
    # With dictionary encoding, a text that a million rows repeat is stored once. Else small batches limit the memory.
    with _open_parquet(file, read_dictionary=packed) as table:
        try:
            for batch in table.iter_batches(_BATCH if packed else _SMALL_BATCH, columns=[*wanted, *kept]):
                for values in zip(*(_cut(batch[name]) for name in wanted + kept), strict=True):
                    row += 1
                    name, quantity, *article = values[: len(wanted)]
                    is_number = quantity is not None and not isinstance(quantity, str)
                    amount = float(quantity) if is_number else _text(quantity)
                    texts = tuple(map(_text, values[len(wanted) :]))
                    yield Cells(row, _text(name), amount, "".join(map(_text, article)), texts)
        except (OSError, ValueError) as error:  # bases of pyarrow's errors
            raise BinwatchError(f"{file}: is damaged after row {row} ({error}); write it again") from error


_NEEDS = (
    "not text: as numbers, 00121 and 121 would be the same bin",
    "neither numbers nor text",
    "neither numbers nor text",
)


def _check_size(file: Path, table: Any, names: list[str]) -> None:
    """Raise BinwatchError if a row group is too large: a few kilobytes may decompress to gigabytes."""
    for number in range(table.metadata.num_row_groups):
        group = table.metadata.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema in names and column.total_uncompressed_size > MAX_COLUMN_BYTES:
                raise BinwatchError(
                    f"{file}: column {column.path_in_schema!r} has {column.total_uncompressed_size:,} bytes in one row"
                    f" group, over the limit of {MAX_COLUMN_BYTES:,}; write it in row groups of 100,000 rows"
                )


def _is_packed(table: Any, name: str) -> bool:
    """Whether a text column can be read with dictionary encoding, which pyarrow does not support for all encodings."""
    groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
    columns = [column for group in groups for column in map(group.column, range(group.num_columns))]
    encodings = {encoding for column in columns if column.path_in_schema == name for encoding in column.encodings}
    return _is_text(table.schema_arrow.field(name).type) and encodings <= _DICTIONARY


def _cut(column: Any) -> list[object]:
    """The values of a column; texts are cut after MAX_CELL characters."""
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

    numbers = (types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    return _is_text(kind) or any(is_of_kind(kind) for is_of_kind in numbers)


def _text(value: Any) -> str:
    return "" if value is None else text_of(value) if isinstance(value, float) else str(value)
