"""Reads an inventory file (XLSX, XLS, ODS, CSV or Parquet, detected by its first bytes) as rows of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from binwatch.errors import BinwatchError
from binwatch.inventory.columns import ColumnNames, InventoryColumns, find_columns

HEADER_WITHIN = 20
"""Number of first rows in which the header is searched."""
FORMATS = "XLSX, ODS, CSV or Parquet"
"""For messages."""


class Cells(NamedTuple):
    """One row. `row` counts from 1, as in spreadsheets and editors; in Parquet, without a header.

    `quantity` is a float only if the file's cell is a number, not a text that looks like one.
    """

    row: int
    bin: str
    quantity: str | float
    article: str = ""
    kept: tuple[str, ...] = ()


Row = tuple[int, Sequence[str | float]]
"""Position of a row, and its cells."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file's rows, which can be read repeatedly. Reading raises BinwatchError if the file is damaged."""

    said: str
    """The detected columns and format, in words."""
    rows: Callable[[], Iterator[Cells]]
    has_articles: bool = False


def open_table(file: Path, named: ColumnNames = ColumnNames()) -> Table:  # noqa: B008 (frozen)
    """Open a file and find its columns. Raises BinwatchError if it cannot be read or lacks a column."""
    from binwatch.inventory import delimited, parquet, workbook

    start = first_bytes(file)
    if start.startswith(b"PAR1") or file.suffix.lower() in (".parquet", ".pq"):
        return parquet.open_parquet(file, named)
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        return workbook.open_workbook(file, named)
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html", b"<table", b"<?xml")):
        raise BinwatchError(
            f"{file}: is a web page or XML, despite its suffix; open it in a spreadsheet and save it as XLSX"
        )
    return delimited.open_delimited(file, named)


def unreadable(file: Path, error: OSError) -> BinwatchError:
    """The error for an inventory file that cannot be read."""
    missing = isinstance(error, FileNotFoundError)
    remedy = "check its name and folder" if missing else f"name a file in {FORMATS}"
    return BinwatchError(f"{file}: cannot be read ({error.strerror}); {remedy}")


def first_bytes(file: Path, length: int = 64) -> bytes:
    """The first bytes of a file. Raises BinwatchError if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(length)
    except OSError as error:
        raise unreadable(file, error) from error


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a table. If none was found, `columns` is None and `cells` is the fullest row."""

    row: int = 0
    cells: Sequence[str] = ()
    columns: InventoryColumns | None = None


def find_header(rows: Iterator[Row], named: ColumnNames) -> Header:
    """The first row that names the columns; a report's title may be above it."""
    best = Header()
    for place, cells in islice(rows, HEADER_WITHIN):
        texts = [cell.strip() if isinstance(cell, str) else "" for cell in cells]
        columns = find_columns(texts, named)
        if columns is not None:
            return Header(place, texts, columns)
        best = max(best, Header(place, list(filter(None, texts))), key=lambda header: len(header.cells))
    return best


def rows_below(rows: Iterator[Row], header: int, columns: InventoryColumns) -> Iterator[Cells]:
    """The rows after the header, without blank ones."""
    for place, cells in rows:
        if place > header and any(cell != "" and not str(cell).isspace() for cell in cells):
            bin_, quantity = _cell(cells, columns.bin), _cell(cells, columns.quantity)
            article = "" if columns.article is None else text_of(_cell(cells, columns.article))
            kept = tuple(text_of(_cell(cells, at)) for at in columns.kept)
            yield Cells(place, text_of(bin_), quantity, article, kept)


def text_of(cell: str | float) -> str:
    """A cell as text; a whole number without the ".0" of spreadsheets."""
    if isinstance(cell, float):
        return f"{cell:.0f}" if cell.is_integer() else repr(cell)
    return str(cell)


def _cell(cells: Sequence[str | float], at: int) -> str | float:
    return cells[at] if at < len(cells) else ""
