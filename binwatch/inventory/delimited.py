"""CSV as programs write it: any of the usual delimiters and encodings."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from binwatch.errors import BinwatchError
from binwatch.inventory.columns import ColumnNames, explain
from binwatch.inventory.tables import Row, Table, find_header, first_bytes, rows_below, unreadable
from binwatch.safe_csv import original

MAX_ROW = 2**20
"""Characters of a row."""
_BLOCK = 2**20
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NAMES = {
    "utf-8-sig": "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "cp1252": "Windows-1252",  # what Excel on Windows saves as "CSV" in western languages
}


def open_delimited(file: Path, named: ColumnNames) -> Table:
    """Find out encoding, delimiter and columns. Raises BinwatchError."""
    encoding = _encoding(file)
    # A quoted cell is no error before it is known what stands between cells; the wrong mark leaves fewer of them.
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
                yield reader.line_num, [_unwrapped(original(cell)) for cell in row]
    except OSError as error:
        raise unreadable(file, error) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise BinwatchError(f"{file}: is not a CSV ({error}); save it as one, or as XLSX") from error


def _unwrapped(cell: str) -> str:
    """Some systems write ="00184", from which spreadsheets drop no zeros."""
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') and len(cell) > 2 else cell


class _Lines(Iterator[str]):
    """Lines of a file. Raises csv.Error rather than read more than MAX_ROW characters for one row."""

    def __init__(self, opened: TextIO) -> None:
        self._opened = opened
        self.taken = 0
        """Characters since the last row ended. The reader of rows resets it after each row."""

    def __next__(self) -> str:
        line = self._opened.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self.taken += len(line)
        if self.taken > MAX_ROW:
            raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
        return line


def _encoding(file: Path) -> str:
    """The encoding by the file's first bytes, or the first of UTF-8 and Windows-1252 that all of it is in."""
    start = first_bytes(file)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Without a mark: in a header of western letters every other byte is 0.
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
