"""The CSV of audits, draws, repeats, variances and known quantities, which the monitor writes and the trainer reads."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from binwatch.errors import BinwatchError, shown
from binwatch.keys import bin_id
from binwatch.metadata import MAX_QUANTITY
from binwatch.moments import in_utc
from binwatch.numbers import number, whole
from binwatch.safe_csv import original

COLUMNS = (
    "kind", "bucket", "bin", "answer", "quantity", "reason", "note", "auditor", "blind", "at", "key", "etag",
    "latest_photo", "model", "expected", "likelihood", "belongs_to", "step", "source",
)  # fmt: skip

E = TypeVar("E", bound=StrEnum)


class RowKind(StrEnum):
    """Kind of a row. The set is closed."""

    AUDIT = "audit"
    DRAW = "draw"
    """A bin that was drawn at random. Audits of the same photo are its answers."""
    REPEAT = "repeat"
    """A photo that was given to a second auditor, after the audit whose time is in `belongs_to`."""
    VARIANCE = "variance"
    """A step of the variance that was opened at the time in `belongs_to`."""
    KNOWN = "known"
    """A photo whose true quantity is known, from `source`."""


class BadCell(BinwatchError):
    """A cell that cannot be read. The message names file, line and column, and the expected content."""


@dataclass(frozen=True, slots=True)
class AuditFileRow:
    """A row of the file: column → text."""

    file: Path
    line: int
    cells: dict[str, str]

    def bad(self, column: str, expected: str) -> BadCell:
        """The error for a cell whose content is not the `expected` one."""
        return BadCell(f"{self.file}, line {self.line}, column {column}: {shown(self.cells[column])} is not {expected}")

    @property
    def bin_id(self) -> str:
        """The bin's id. Raises BadCell if it is empty."""
        found = bin_id(self.cells["bin"])
        if not found:
            raise self.bad("bin", "the id of a bin")
        return found

    def text(self, column: str) -> str | None:
        """The cell's text; None if the cell is empty or the file has no such column."""
        return self.cells.get(column) or None

    def choice(self, column: str, kind: type[E]) -> E:
        """The cell as a member of `kind`. Raises BadCell."""
        try:
            return kind(self.cells[column].strip())
        except ValueError:
            raise self.bad(column, f"one of {', '.join(kind)}") from None

    def flag(self, column: str) -> bool:
        """The cell as a truth value. Raises BadCell unless it is 0 or 1."""
        if self.cells[column].strip() not in ("0", "1"):
            raise self.bad(column, "0 or 1")
        return self.cells[column].strip() == "1"

    def items(self, column: str) -> int:
        """The cell as a number of items. Raises BadCell."""
        found = whole(self.cells[column])
        if found is None or not 0 <= found <= MAX_QUANTITY:
            raise self.bad(column, f"a whole number of 0 to {MAX_QUANTITY:,}")
        return found

    def likelihood(self, column: str) -> float:
        """The cell as a likelihood. Raises BadCell unless it is above 0 and at most 1."""
        found = number(self.cells[column])
        if found is None or not 0 < found <= 1:
            raise self.bad(column, "a number above 0 and at most 1")
        return found

    def moment(self, column: str) -> datetime:
        """The cell as a time in the past, in UTC. Raises BadCell."""
        try:
            found = datetime.fromisoformat(self.cells[column].strip())
        except ValueError:
            found = None
        if found is None or found.tzinfo is None or (moment := in_utc(found)) > datetime.now(UTC):
            raise self.bad(column, "a time in the past with its offset, as 2026-11-30T08:15:00+00:00")
        return moment


def read_rows(file: Path, columns: Collection[str], says: str) -> list[AuditFileRow]:
    """All rows of a UTF-8 CSV with at least these `columns`; `says` ends the message if one of them is missing.

    Raises BinwatchError.
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
        raise BinwatchError(f"{file}: no column {missing[0]!r}; {says}")
    for line, row in rows:
        if None in row:  # DictReader's key for surplus cells
            raise BinwatchError(f"{file}, line {line}: more cells than columns; quote cells that contain commas")
    return [AuditFileRow(file, line, {name: original(cell) for name, cell in row.items()}) for line, row in rows]
