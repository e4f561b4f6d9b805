"""Reads an inventory file (XLSX, XLS, ODS, CSV or Parquet, detected by its first bytes) as rows of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from binwatch.errors import BinwatchError
from binwatch.inventory.columns import ColumnNames, InventoryColumns, find_columns

_MAX_HEADER_ROWS = 20
"""Number of rows at the start of a table that are searched for the header."""


class Cells(NamedTuple):
    """The relevant cells of one row."""

    row: int
    """Row number from 1, as in spreadsheets and editors. In Parquet, the header is not counted."""
    bin: str
    quantity: str | float
    """A float only if the cell of the file is a number, not a text that looks like one."""
    article: str = ""
    kept: tuple[str, ...] = ()


Row = tuple[int, Sequence[str | float]]
"""Row number from 1, and the cells."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file's rows, which can be read repeatedly. Reading raises BinwatchError if the file is damaged."""

    description: str
    """The detected columns and format as text."""
    rows: Callable[[], Iterator[Cells]]
    has_articles: bool = False


def open_table(file: Path, names: ColumnNames = ColumnNames()) -> Table:  # noqa: B008 (frozen)
    """Open a file and find its columns. Raises BinwatchError if it cannot be read or lacks a column."""
    from binwatch.inventory import delimited, parquet, workbook

    start = first_bytes(file)
    if start.startswith(b"PAR1") or file.suffix.lower() in (".parquet", ".pq"):
        return parquet.open_parquet(file, names)
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        return workbook.open_workbook(file, names)
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html", b"<table", b"<?xml")):
        raise BinwatchError(
            f"{file}: is a web page or XML, despite its suffix; open it in a spreadsheet and save it as XLSX"
        )
    return delimited.open_delimited(file, names)


def unreadable_error(file: Path, error: OSError) -> BinwatchError:
    """Return the error for an inventory file that cannot be read."""
    is_missing = isinstance(error, FileNotFoundError)
    remedy = "check its name and folder" if is_missing else "name a file in XLSX, ODS, CSV or Parquet"
    return BinwatchError(f"{file}: cannot be read ({error.strerror}); {remedy}")


def first_bytes(file: Path, length: int = 64) -> bytes:
    """Return the first bytes of a file. Raises BinwatchError if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(length)
    except OSError as error:
        raise unreadable_error(file, error) from error


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a table. If none was found, `columns` is None, and `cells` is the longest row that was searched."""

    row: int = 0
    cells: Sequence[str] = ()
    columns: InventoryColumns | None = None


def find_header(rows: Iterator[Row], names: ColumnNames) -> Header:
    """Find the first row that names the columns. Other rows, such as a title, may precede it."""
    longest = Header()
    for row, cells in islice(rows, _MAX_HEADER_ROWS):
        texts = [cell.strip() if isinstance(cell, str) else "" for cell in cells]
        columns = find_columns(texts, names)
        if columns is not None:
            return Header(row, texts, columns)
        longest = max(longest, Header(row, list(filter(None, texts))), key=lambda header: len(header.cells))
    return longest


def rows_below(rows: Iterator[Row], header: int, columns: InventoryColumns) -> Iterator[Cells]:
    """Yield the rows after the header, except blank ones."""
    for row, cells in rows:
        if row > header and any(cell != "" and not str(cell).isspace() for cell in cells):
            bin_, quantity = _cell(cells, columns.bin), _cell(cells, columns.quantity)
            article = "" if columns.article is None else cell_text(_cell(cells, columns.article))
            kept = tuple(cell_text(_cell(cells, index)) for index in columns.kept)
            yield Cells(row, cell_text(bin_), quantity, article, kept)


def cell_text(cell: str | float) -> str:
    """Return a cell as text, with whole numbers without the ".0" of spreadsheets."""
    if isinstance(cell, float):
        return f"{cell:.0f}" if cell.is_integer() else repr(cell)
    return str(cell)


def _cell(cells: Sequence[str | float], index: int) -> str | float:
    return cells[index] if index < len(cells) else ""
