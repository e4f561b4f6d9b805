"""Writes documents in the format of the file's suffix."""

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
"""Most rows with links in an XLSX; Excel's limit is 65,530 links on a sheet."""
_MAX_URL_CHARS = 2_000
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
    """Raise BinwatchError if `path` cannot be written, as far as that is known before."""
    if path.suffix.lower() not in _WRITERS:
        raise BinwatchError(f"{path}: unknown suffix; use one of {', '.join(_WRITERS)}")
    if path.is_file() and not path.stat().st_mode & stat.S_IWUSR:  # replacing the file would ignore that
        raise BinwatchError(f"{path}: is read-only; name another file, or allow it to be replaced")
    if not path.resolve().parent.is_dir():
        raise BinwatchError(f"{path}: its folder does not exist; create it, or name another file")
    needed, extra = _OPTIONAL_LIBRARIES.get(path.suffix.lower(), ("", ""))
    if needed and find_spec(needed) is None:
        raise BinwatchError(f"{path}: needs {needed}; install Binwatch with the extra {extra}, or name a .csv")


def import_library(path: Path) -> None:
    """Import the library that `write` needs for `path`, which takes a tenth of a second."""
    if needed := _OPTIONAL_LIBRARIES.get(path.suffix.lower()):
        import_module(needed[0])


def output_files(path: Path, slugs: Sequence[str]) -> list[Path]:
    """All files that `write` creates for `path`; `slugs`: slugs of the sheets after the first."""
    beside = slugs if path.suffix.lower() in (".csv", ".parquet") else ()
    return [path, *(path.with_suffix(f".{slug}{path.suffix}") for slug in beside)]


def write_document(document: Document, path: Path) -> list[Path]:
    """Write a document; returns its files. CSV and Parquet have one file per sheet, named after `path`."""
    try:
        return _WRITERS[path.suffix.lower()](document, path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room" if full else "close it if another program has it open"
        raise BinwatchError(f"{path}: cannot be written ({error.strerror}); {remedy}, or name another file") from error


def _write_xlsx(document: Document, path: Path) -> list[Path]:
    from xlsxwriter import Workbook
    from xlsxwriter.exceptions import FileCreateError

    # A photo's name may look like a formula. Not in memory, each picture would be a temporary file.
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


def _write_sheet(into: Any, sheet: Sheet, document: Document, path: Path, styles: dict[str, Any]) -> None:
    pictures = document.pictures if sheet is document.sheets[0] else {}
    first = 1 if pictures else 0  # position of the sheet's first column
    if pictures:
        into.write(0, 0, "", styles["head"])
        into.set_column_pixels(0, 0, PICTURE_SIDE)
    into.write_row(0, first, sheet.columns, styles["head"])
    into.freeze_panes(1, 0)
    into.set_landscape()
    into.fit_to_pages(1, 0)
    into.repeat_rows(0)
    into.ignore_errors({"number_stored_as_text": f"A1:Z{len(sheet.rows) + 1}"})  # such as 00184
    into.autofilter(0, first, max(1, len(sheet.rows)), first + len(sheet.columns) - 1)
    for at, name in enumerate(sheet.columns, first):
        into.set_column(at, at, _COLUMN_WIDTHS.get(name, 13))
    for number, row in enumerate(sheet.rows, 1):
        for at, (name, cell) in enumerate(zip(sheet.columns, row, strict=True), first):
            url = relative_url(cell.path, path) if isinstance(cell, PhotoLink) and number <= _MAX_LINKED_ROWS else ""
            if url and len(url) < _MAX_URL_CHARS:
                into.write_url(number, at, f"external:{url}", styles["link"], plain_value(cell))
            else:
                into.write(number, at, plain_value(cell), styles[_COLUMN_STYLES.get(name, "cell")])
            jpeg = pictures.get(cell.path) if isinstance(cell, PhotoLink) else None
            if jpeg is not None:
                into.set_row_pixels(number, PICTURE_SIDE)
                into.insert_image(number, 0, f"{number}.jpg", {"image_data": BytesIO(jpeg)})


def _write_csv(document: Document, path: Path) -> list[Path]:
    def write_one(sheet: Sheet, file: Path) -> None:
        # With a byte order mark, or Excel reads UTF-8 as Windows-1252.
        with file.open("w", encoding="utf-8-sig", newline="") as opened:
            writer = SafeCsvWriter(opened)
            writer.writerow(sheet.columns)
            writer.writerows(plain_rows(sheet))

    return _write_each_sheet(document, path, write_one)


def _write_parquet(document: Document, path: Path) -> list[Path]:
    import pyarrow as pa
    from pyarrow import parquet

    def write_one(sheet: Sheet, file: Path) -> None:
        columns = zip(*plain_rows(sheet), strict=True) if sheet.rows else [()] * len(sheet.columns)
        parquet.write_table(pa.table(dict(zip(sheet.columns, map(list, columns), strict=True))), file)

    return _write_each_sheet(document, path, write_one)


def _write_json(document: Document, path: Path) -> list[Path]:
    whole: dict[str, Any] = {"summary": list(document.summary)}
    for sheet in document.sheets:
        whole[sheet.slug] = [dict(zip(sheet.columns, row, strict=True)) for row in plain_rows(sheet)]
    return _write_text(path, json.dumps(whole, ensure_ascii=False, indent=1))


def _write_each_sheet(document: Document, path: Path, write_one: Callable[[Sheet, Path], None]) -> list[Path]:
    files = output_files(path, [sheet.slug for sheet in document.sheets[1:]])
    for file, sheet in zip(files, document.sheets, strict=True):
        write_one(sheet, _partial_path(file))
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
