"""Reads the audit file: a CSV of audits, draws, repeats, variances and known quantities that the monitor exports."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from binwatch.errors import BinwatchError, quote_value
from binwatch.keys import normalise_bin_id
from binwatch.metadata import MAX_QUANTITY
from binwatch.moments import to_utc
from binwatch.numbers import parse_float, parse_int
from binwatch.safe_csv import unescape_formula

AUDIT_FILE_COLUMNS = (
    "kind", "bucket", "bin", "answer", "quantity", "reason", "note", "auditor", "blind", "at", "key", "etag",
    "latest_photo", "model", "expected", "likelihood", "belongs_to", "step", "source",
)  # fmt: skip

E = TypeVar("E", bound=StrEnum)


class RowKind(StrEnum):
    """Kind of a row. The set is closed."""

    AUDIT = "audit"
    DRAW = "draw"
    """A random draw of a bin. Audits of the same photo are its answers."""
    REPEAT = "repeat"
    """A photo that a second auditor audits, after the audit whose time is in `belongs_to`."""
    VARIANCE = "variance"
    """A step of the variance that was opened at the time in `belongs_to`."""
    KNOWN = "known"
    """A photo whose true quantity is known from `source`."""


class CellError(BinwatchError):
    """A cell has an invalid value. The message names the file, the line, the column and the expected value."""


@dataclass(frozen=True, slots=True)
class AuditFileRow:
    """A row of the audit file, with accessors that validate its cells."""

    file: Path
    line: int
    cells: dict[str, str]
    """Column → text."""

    def cell_error(self, column: str, expected: str) -> CellError:
        """Return the error for a cell whose value is not what `expected` describes."""
        return CellError(
            f"{self.file}, line {self.line}, column {column}: {quote_value(self.cells[column])} is not {expected}"
        )

    @property
    def bin_id(self) -> str:
        """Id of the bin. Raises CellError if it is empty."""
        bin_id = normalise_bin_id(self.cells["bin"])
        if not bin_id:
            raise self.cell_error("bin", "the id of a bin")
        return bin_id

    def text(self, column: str) -> str | None:
        """Return the text of a cell; None if it is empty or the file has no such column."""
        return self.cells.get(column) or None

    def choice(self, column: str, kind: type[E]) -> E:
        """Parse a cell as a member of `kind`. Raises CellError."""
        try:
            return kind(self.cells[column].strip())
        except ValueError:
            raise self.cell_error(column, f"one of {', '.join(kind)}") from None

    def flag(self, column: str) -> bool:
        """Parse a cell that is 0 or 1. Raises CellError."""
        text = self.cells[column].strip()
        if text not in ("0", "1"):
            raise self.cell_error(column, "0 or 1")
        return text == "1"

    def quantity(self, column: str) -> int:
        """Parse a cell as a number of items. Raises CellError."""
        quantity = parse_int(self.cells[column])
        if quantity is None or not 0 <= quantity <= MAX_QUANTITY:
            raise self.cell_error(column, f"a whole number of 0 to {MAX_QUANTITY:,}")
        return quantity

    def likelihood(self, column: str) -> float:
        """Parse a cell as a likelihood, above 0 and at most 1. Raises CellError."""
        likelihood = parse_float(self.cells[column])
        if likelihood is None or not 0 < likelihood <= 1:
            raise self.cell_error(column, "a number above 0 and at most 1")
        return likelihood

    def time(self, column: str) -> datetime:
        """Parse a cell as a time in the past; returns it in UTC. Raises CellError."""
        try:
            time = datetime.fromisoformat(self.cells[column].strip())
        except ValueError:
            time = None
        if time is None or time.tzinfo is None or (time_utc := to_utc(time)) > datetime.now(UTC):
            raise self.cell_error(column, "a time in the past with its offset, as 2026-11-30T08:15:00+00:00")
        return time_utc


def read_audit_file(file: Path, columns: Collection[str], hint: str) -> list[AuditFileRow]:
    """Read all rows of a UTF-8 CSV that has at least these `columns`.

    Raises BinwatchError. If a column is missing, the message ends with `hint`.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, strict=True, restval="")
            header = reader.fieldnames or ()
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise BinwatchError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BinwatchError(f"{file}: is not text in UTF-8 ({error})") from error
    except csv.Error as error:
        raise BinwatchError(f"{file}, line {reader.line_num}: is not a CSV ({error})") from error
    missing = [name for name in columns if name not in header]
    if missing:
        raise BinwatchError(f"{file}: no column {missing[0]!r}; {hint}")
    for line, row in rows:
        if None in row:  # DictReader's key for surplus cells
            raise BinwatchError(f"{file}, line {line}: more cells than columns; quote cells that contain commas")
    return [
        AuditFileRow(file, line, {name: unescape_formula(cell) for name, cell in row.items()}) for line, row in rows
    ]
