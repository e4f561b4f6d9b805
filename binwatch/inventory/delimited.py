"""CSV with any of the usual delimiters and encodings."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from binwatch.errors import BinwatchError
from binwatch.inventory.columns import ColumnNames, explain
from binwatch.inventory.tables import Row, Table, find_header, first_bytes, rows_below, unreadable
from binwatch.safe_csv import unescape_formula

MAX_ROW = 2**20
"""Most characters of a row."""
_BLOCK = 2**20
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NAMES = {
    "utf-8-sig": "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "cp1252": "Windows-1252",  # Excel's "CSV" on Windows in western languages
}


def open_delimited(file: Path, named: ColumnNames) -> Table:
    """Detect encoding, delimiter and columns. Raises BinwatchError."""
    encoding = _encoding(file)
    # Not strict, since quotes look wrong with a wrong delimiter. The right one gives the most cells.
    headers = [(find_header(_rows(file, encoding, mark, strict=False), named), mark) for mark in _DELIMITERS]
    header, mark = max(headers, key=lambda found: (found[0].columns is not None, len(found[0].cells)))
    if header.columns is None:
        raise explain(file, header.cells, named)
    columns = header.columns
    return Table(
        f"{columns.said} ({_DELIMITERS[mark]} between columns, {_NAMES[encoding]})",
        lambda: rows_below(_rows(file, encoding, mark), header.row, columns),
        columns.article is not None,
    )


def _rows(file: Path, encoding: str, delimiter: str, *, strict: bool = True) -> Iterator[Row]:
    try:
        with file.open(encoding=encoding, newline="") as opened:
            lines = _Lines(opened)
            reader = csv.reader(lines, delimiter=delimiter, strict=strict)
            for row in reader:
                lines.taken = 0
                yield reader.line_num, [_unwrapped(unescape_formula(cell)) for cell in row]
    except OSError as error:
        raise unreadable(file, error) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise BinwatchError(f"{file}: is not a CSV ({error}); save it as one, or as XLSX") from error


def _unwrapped(cell: str) -> str:
    """The text in ="00184", which some systems write so that spreadsheets keep the zeros."""
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') and len(cell) > 2 else cell


class _Lines(Iterator[str]):
    """Lines of a file. Raises csv.Error if a row has more than MAX_ROW characters."""

    def __init__(self, opened: TextIO) -> None:
        self._opened = opened
        self.taken = 0
        """Characters read since the last row. The caller resets it after each row."""

    def __next__(self) -> str:
        line = self._opened.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self.taken += len(line)
        if self.taken > MAX_ROW:
            raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
        return line


def _encoding(file: Path) -> str:
    """The encoding by the file's first bytes, else UTF-8 or Windows-1252, whichever first decodes the whole file."""
    start = first_bytes(file)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # UTF-16 without a byte order mark: every other byte of a western header is 0.
    for encoding, zeros in (("utf-16-le", start[1:20:2]), ("utf-16-be", start[0:20:2])):
        if zeros and not any(zeros):
            return encoding
    return next((encoding for encoding in ("utf-8-sig", "cp1252") if _is_in(file, encoding)), "utf-8-sig")


def _is_in(file: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
