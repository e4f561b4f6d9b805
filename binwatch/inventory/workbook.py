"""Reads sheets of XLSX, XLS and ODS files with calamine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import binwatch
from binwatch.errors import BinwatchError
from binwatch.inventory import unpack
from binwatch.inventory.columns import ColumnNames, columns_error
from binwatch.inventory.tables import Row, Table, find_header, rows_below
from binwatch.text import escape_unprintable


class _Sheet(NamedTuple):
    """A sheet's name, and the file with its rows, written by `unpack`."""

    name: str
    file: Path


class _UnpackedWorkbook:
    """A temporary folder with the sheets of a workbook, deleted along with this object."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="binwatch-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def rows(self, sheet: _Sheet) -> Iterator[Row]:
        """Read the rows of a sheet."""
        with sheet.file.open(encoding="utf-8") as lines:
            for row, line in enumerate(lines, 1):
                yield row, json.loads(line)


def open_workbook(file: Path, names: ColumnNames) -> Table:
    """Open the first visible sheet that has columns for bin and quantity. Raises BinwatchError."""
    unpacked = _UnpackedWorkbook()
    sheets = _unpack_sheets(file, unpacked.folder)
    headers = [find_header(unpacked.rows(sheet), names) for sheet in sheets]
    suitable = [(sheet, header) for sheet, header in zip(sheets, headers, strict=True) if header.columns]
    if not suitable:
        raise columns_error(file, max((header.cells for header in headers), key=len, default=()), names)
    sheet, header = suitable[0]
    columns = header.columns
    assert columns is not None
    ignored = "".join(f", not '{escape_unprintable(other.name)}'" for other, _ in suitable[1:])
    sheet_description = f" of sheet '{escape_unprintable(sheet.name)}'{ignored}" if len(sheets) > 1 else ""
    return Table(
        f"{columns.description}{sheet_description}",
        lambda: rows_below(unpacked.rows(sheet), header.row, columns),
        columns.article is not None,
    )


def _unpack_sheets(file: Path, folder: Path) -> Sequence[_Sheet]:
    import python_calamine  # noqa: F401 (if it is missing, the error must be raised in this process)

    process = subprocess.run(  # noqa: S603 (our own module, by our own interpreter)
        [sys.executable, "-m", unpack.__name__, file.absolute(), folder],
        cwd=Path(binwatch.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    if process.returncode > 0:
        raise BinwatchError(
            f"{file}: cannot be unpacked ({process.stderr.strip().rpartition(chr(10))[2]}); save it as CSV"
        )
    answer = json.loads(process.stdout) if process.returncode == 0 else {}  # < 0: aborted by calamine or the kernel
    if process.returncode or "too_large" in answer:
        raise BinwatchError(
            f"{file}: takes more than {unpack.MAX_MEMORY_BYTES // 2**30} GiB of memory or {unpack.MAX_CPU_SECONDS} s to"
            " unpack; delete what is outside of the table and save it again, or save the sheet as CSV"
        )
    if answer.get("protected"):
        raise BinwatchError(f"{file}: is protected by a password; save it without one")
    if "error" in answer:
        raise BinwatchError(f"{file}: is not a readable XLSX or ODS file ({answer['error']}); save it again, or as CSV")
    return [_Sheet(name, folder / str(index)) for index, name in enumerate(answer["sheets"])]
