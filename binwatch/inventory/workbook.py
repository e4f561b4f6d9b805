"""Sheets of XLSX, XLS and ODS files, read with calamine."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from binwatch.errors import BinwatchError
from binwatch.inventory.columns import Columns, Named, explain
from binwatch.inventory.tables import Cells, Row, Table, find_header, rows_below
from binwatch.text import visible

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

MAX_UNPACKED = 2**29
"""Bytes of an unpacked XLSX or ODS: a hundred times a million bins. A few kilobytes may unpack to gigabytes."""


def open_workbook(file: Path, named: Named) -> Table:
    """The first visible sheet that has a bin and a quantity. Raises BinwatchError."""
    from python_calamine import CalamineError, PasswordError, SheetVisibleEnum, load_workbook

    try:
        _check_size(file)
        book = load_workbook(str(file))
        names = [sheet.name for sheet in book.sheets_metadata if sheet.visible is SheetVisibleEnum.Visible]
        sheets = [book.get_sheet_by_name(name) for name in names]
        headers = [find_header(_rows(sheet), named) for sheet in sheets]
    except PasswordError as error:
        raise BinwatchError(f"{file}: is protected by a password; save it without one") from error
    except (CalamineError, zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise BinwatchError(
            f"{file}: is no XLSX or ODS that can be read ({error}); save it again, or as CSV"
        ) from error
    found = [(sheet, header) for sheet, header in zip(sheets, headers, strict=True) if header.columns]
    if not found:
        raise explain(file, max((header.cells for header in headers), key=len, default=()), named)
    sheet, header = found[0]
    assert header.columns is not None
    ignored = "".join(f", not {_quoted(other.name)}" for other, _ in found[1:])
    of = f" of sheet {_quoted(sheet.name)}{ignored}" if len(sheets) > 1 else ""
    rows = partial(_below, sheet, header.row, header.columns)
    return Table(f"{header.columns.said}{of}", rows, header.columns.article is not None)


def _below(sheet: CalamineSheet, header: int, columns: Columns) -> Iterator[Cells]:
    return rows_below(_rows(sheet), header, columns)


def _rows(sheet: CalamineSheet) -> Iterator[Row]:
    for place, cells in enumerate(sheet.iter_rows(), 1):
        yield place, [_cell(cell) for cell in cells]


def _cell(value: object) -> str | float:
    if isinstance(value, str | float):
        return value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _check_size(file: Path) -> None:
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as parts:
        size = sum(part.file_size for part in parts.infolist())
    if size > MAX_UNPACKED:
        raise BinwatchError(
            f"{file}: has {size:,} bytes unpacked, over the limit of {MAX_UNPACKED:,}; save the sheet as CSV"
        )


def _quoted(name: str) -> str:
    return f"'{visible(name)}'"
