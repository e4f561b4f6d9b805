"""Writes documents in the format given by the file's suffix."""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from binwatch.counts import CLASSES
from binwatch.documents import (
    P_VALUE_COLUMNS,
    PICTURE_SIDE,
    Document,
    PhotoLink,
    Sheet,
    plain_rows,
    plain_value,
    relative_url,
)
from binwatch.documents.page import render_page
from binwatch.errors import BinwatchError
from binwatch.safe_csv import SafeCsvWriter

_MAX_LINKED_ROWS = 60_000
"""Maximum number of rows with links in an XLSX sheet. Excel's limit is 65,530 links per sheet."""
_MAX_URL_CHARS = 2_000
"""Links of this length or longer are written as plain text."""
_COLUMN_WIDTHS = {
    "photo": 24,
    "detail": 60,
    "what to do": 50,
    "articles": 60,
    "in words": 18,
    **dict.fromkeys(P_VALUE_COLUMNS, 18),
}
_COLUMN_STYLES = (
    dict.fromkeys(P_VALUE_COLUMNS, "p") | {"probability": "share"} | {f"p({name})": "share" for name in CLASSES}
)


_OPTIONAL_LIBRARIES = {".xlsx": ("xlsxwriter", "check"), ".parquet": ("pyarrow", "parquet")}
"""Suffix → optional library, and the extra that installs it."""


def check_format(path: Path) -> None:
    """Raise BinwatchError if `path` cannot be written, as far as that can be known in advance."""
    if path.suffix.lower() not in _WRITERS:
        raise BinwatchError(f"{path}: unknown suffix; use one of {', '.join(_WRITERS)}")
    if path.is_file() and not path.stat().st_mode & stat.S_IWUSR:  # replacing the file would ignore its mode
        raise BinwatchError(f"{path}: is read-only; name another file, or allow it to be replaced")
    if not path.resolve().parent.is_dir():
        raise BinwatchError(f"{path}: its folder does not exist; create it, or name another file")
    library, extra = _OPTIONAL_LIBRARIES.get(path.suffix.lower(), ("", ""))
    if library and find_spec(library) is None:
        raise BinwatchError(f"{path}: needs {library}; install Binwatch with the extra {extra}, or name a .csv")


def import_library(path: Path) -> None:
    """Import the library that `write_document` needs for `path`. The import takes a tenth of a second."""
    if entry := _OPTIONAL_LIBRARIES.get(path.suffix.lower()):
        import_module(entry[0])


def output_files(path: Path, slugs: Sequence[str]) -> list[Path]:
    """Return all files that `write_document` creates for `path`; `slugs`: slugs of the sheets after the first."""
    further_slugs = slugs if path.suffix.lower() in (".csv", ".parquet") else ()
    return [path, *(path.with_suffix(f".{slug}{path.suffix}") for slug in further_slugs)]


def write_document(document: Document, path: Path) -> list[Path]:
    """Write a document and return its files. CSV and Parquet have one file per sheet, named after `path`."""
    try:
        return _WRITERS[path.suffix.lower()](document, path)
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room" if is_full else "close it if another program has it open"
        raise BinwatchError(f"{path}: cannot be written ({error.strerror}); {remedy}, or name another file") from error


def _write_xlsx(document: Document, path: Path) -> list[Path]:
    from xlsxwriter import Workbook
    from xlsxwriter.exceptions import FileCreateError

    # The name of a photo may look like a formula. Without in_memory, each picture would be a temporary file.
    options = {"strings_to_formulas": False, "strings_to_urls": False, "in_memory": True}
    book = Workbook(str(_partial_path(path)), options)
    styles = {
        "head": book.add_format({"bold": True, "bottom": 1, "valign": "top", "text_wrap": True}),
        "share": book.add_format({"num_format": "0%", "valign": "top"}),
        "p": book.add_format({"num_format": "0.0000", "valign": "top"}),
        "link": book.add_format({"font_color": "blue", "underline": 1, "valign": "top"}),
        "cell": book.add_format({"valign": "top"}),
    }
    for sheet in document.sheets:
        _write_sheet(book.add_worksheet(sheet.name), sheet, document, path, styles)
    summary = book.add_worksheet("Summary")
    summary.set_column(0, 0, 120)
    summary.write_column(0, 0, document.summary)
    try:
        book.close()
    except FileCreateError as error:
        raise BinwatchError(
            f"{path}: cannot be written ({error}); close it if another program has it open, or name another file"
        ) from error
    _partial_path(path).replace(path)
    return [path]


def _write_sheet(worksheet: Any, sheet: Sheet, document: Document, path: Path, styles: dict[str, Any]) -> None:
    pictures = document.pictures if sheet is document.sheets[0] else {}
    first = 1 if pictures else 0  # position of the sheet's first column
    if pictures:
        worksheet.write(0, 0, "", styles["head"])
        worksheet.set_column_pixels(0, 0, PICTURE_SIDE)
    worksheet.write_row(0, first, sheet.columns, styles["head"])
    worksheet.freeze_panes(1, 0)
    worksheet.set_landscape()
    worksheet.fit_to_pages(1, 0)
    worksheet.repeat_rows(0)
    worksheet.ignore_errors({"number_stored_as_text": f"A1:Z{len(sheet.rows) + 1}"})  # such as 00184
    worksheet.autofilter(0, first, max(1, len(sheet.rows)), first + len(sheet.columns) - 1)
    for column, name in enumerate(sheet.columns, first):
        worksheet.set_column(column, column, _COLUMN_WIDTHS.get(name, 13))
    for row, cells in enumerate(sheet.rows, 1):
        for column, (name, cell) in enumerate(zip(sheet.columns, cells, strict=True), first):
            url = relative_url(cell.path, path) if isinstance(cell, PhotoLink) and row <= _MAX_LINKED_ROWS else ""
            if url and len(url) < _MAX_URL_CHARS:
                worksheet.write_url(row, column, f"external:{url}", styles["link"], plain_value(cell))
            else:
                worksheet.write(row, column, plain_value(cell), styles[_COLUMN_STYLES.get(name, "cell")])
            jpeg = pictures.get(cell.path) if isinstance(cell, PhotoLink) else None
            if jpeg is not None:
                worksheet.set_row_pixels(row, PICTURE_SIDE)
                worksheet.insert_image(row, 0, f"{row}.jpg", {"image_data": BytesIO(jpeg)})


def _write_csv(document: Document, path: Path) -> list[Path]:
    def write_sheet(sheet: Sheet, file: Path) -> None:
        # With a byte order mark, without which Excel reads UTF-8 as Windows-1252.
        with file.open("w", encoding="utf-8-sig", newline="") as opened:
            writer = SafeCsvWriter(opened)
            writer.writerow(sheet.columns)
            writer.writerows(plain_rows(sheet))

    return _write_each_sheet(document, path, write_sheet)


def _write_parquet(document: Document, path: Path) -> list[Path]:
    import pyarrow as pa
    from pyarrow import parquet

    def write_sheet(sheet: Sheet, file: Path) -> None:
        columns = zip(*plain_rows(sheet), strict=True) if sheet.rows else [()] * len(sheet.columns)
        parquet.write_table(pa.table(dict(zip(sheet.columns, map(list, columns), strict=True))), file)

    return _write_each_sheet(document, path, write_sheet)


def _write_json(document: Document, path: Path) -> list[Path]:
    content: dict[str, Any] = {"summary": list(document.summary)}
    for sheet in document.sheets:
        content[sheet.slug] = [dict(zip(sheet.columns, row, strict=True)) for row in plain_rows(sheet)]
    return _write_text(path, json.dumps(content, ensure_ascii=False, indent=1))


def _write_each_sheet(document: Document, path: Path, write_sheet: Callable[[Sheet, Path], None]) -> list[Path]:
    files = output_files(path, [sheet.slug for sheet in document.sheets[1:]])
    for file, sheet in zip(files, document.sheets, strict=True):
        write_sheet(sheet, _partial_path(file))
        _partial_path(file).replace(file)
    return files


def _write_text(path: Path, text: str) -> list[Path]:
    _partial_path(path).write_text(text, encoding="utf-8")
    _partial_path(path).replace(path)
    return [path]


def _partial_path(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


_WRITERS: dict[str, Callable[[Document, Path], list[Path]]] = {
    ".xlsx": _write_xlsx,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".json": _write_json,
    ".html": lambda document, path: _write_text(path, render_page(document, path)),
}
