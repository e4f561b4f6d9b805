"""Reads CSV files with any of the usual delimiters and encodings."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from binwatch.errors import BinwatchError
from binwatch.inventory.columns import ColumnNames, columns_error
from binwatch.inventory.tables import Row, Table, find_header, first_bytes, rows_below, unreadable_error
from binwatch.safe_csv import unescape_formula

MAX_ROW_CHARACTERS = 2**20
_BLOCK_BYTES = 2**20
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_ENCODING_NAMES = {
    "utf-8-sig": "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "cp1252": "Windows-1252",  # Excel's "CSV" on Windows in western languages
}


def open_delimited(file: Path, names: ColumnNames) -> Table:
    """Detect encoding, delimiter and columns. Raises BinwatchError."""
    encoding = _detect_encoding(file)
    # Not strict, since quotes look wrong with a wrong delimiter. The right delimiter gives the most cells.
    headers = {
        delimiter: find_header(_read_rows(file, encoding, delimiter, strict=False), names) for delimiter in _DELIMITERS
    }
    delimiter, header = max(headers.items(), key=lambda item: (item[1].columns is not None, len(item[1].cells)))
    if header.columns is None:
        raise columns_error(file, header.cells, names)
    columns = header.columns
    return Table(
        f"{columns.description} ({_DELIMITERS[delimiter]} between columns, {_ENCODING_NAMES[encoding]})",
        lambda: rows_below(_read_rows(file, encoding, delimiter), header.row, columns),
        columns.article is not None,
    )


def _read_rows(file: Path, encoding: str, delimiter: str, *, strict: bool = True) -> Iterator[Row]:
    try:
        with file.open(encoding=encoding, newline="") as opened:
            lines = _Lines(opened)
            reader = csv.reader(lines, delimiter=delimiter, strict=strict)
            for row in reader:
                lines.row_characters = 0
                yield reader.line_num, [_without_formula(unescape_formula(cell)) for cell in row]
    except OSError as error:
        raise unreadable_error(file, error) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise BinwatchError(f"{file}: is not a CSV ({error}); save it as one, or as XLSX") from error


def _without_formula(cell: str) -> str:
    """Return the text in ="00184", which some systems write so that spreadsheets keep the zeros."""
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') and len(cell) > 2 else cell


class _Lines(Iterator[str]):
    """The lines of a file. Raises csv.Error if a row has more than MAX_ROW_CHARACTERS characters."""

    def __init__(self, opened: TextIO) -> None:
        self._opened = opened
        self.row_characters = 0
        """Number of characters read of the current row. The caller resets it after each row."""

    def __next__(self) -> str:
        line = self._opened.readline(MAX_ROW_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self.row_characters += len(line)
        if self.row_characters > MAX_ROW_CHARACTERS:
            raise csv.Error(f"a row of more than {MAX_ROW_CHARACTERS:,} characters")
        return line


def _detect_encoding(file: Path) -> str:
    """Return UTF-16 if the first bytes show it, else UTF-8 or Windows-1252, whichever first decodes the whole file."""
    start = first_bytes(file)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # UTF-16 without a byte order mark: every other byte of a western header is 0.
    for encoding, zeros in (("utf-16-le", start[1:20:2]), ("utf-16-be", start[0:20:2])):
        if zeros and not any(zeros):
            return encoding
    return next((encoding for encoding in ("utf-8-sig", "cp1252") if _is_encoded_in(file, encoding)), "utf-8-sig")


def _is_encoded_in(file: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK_BYTES):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
