"""Expected quantities from a file: CSV or Parquet with the columns `bin` and `quantity`.

Every row is judged by itself. Those that cannot be right are listed in a file of their own, each with the reason; the
others are recorded in chunks, each in a transaction of its own, so that a broken connection costs one chunk and the
same command again does the rest.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar

from sqlalchemy import Engine, select

from binwatch.errors import BinwatchError
from binwatch.keys import bin_id
from binwatch.metadata import MAX_QUANTITY
from binwatch.numbers import number
from binwatch.records.store import NewExpectation, Store
from binwatch.records.tables import Expectation
from binwatch.spreadsheets import CsvWriter
from binwatch.text import visible
from monitor.tabular import MAX_CELL, Cells, read_rows

T = TypeVar("T")

CHUNK = 1000
"""Rows in a transaction. 9 columns each stay below the 32,766 parameters of a SQLite statement."""
LISTED = 100_000
"""Refused rows that are listed; the others are counted. A few kilobytes of Parquet may hold ten million."""
MAX_BIN = 500
"""Characters of a bin's id. S3's keys have at most 1,024 bytes."""


class Refusal(StrEnum):
    """Why a row is not imported. The set is closed; docs/operations.md lists it."""

    NO_BIN = "no_bin"
    BAD_BIN = "bad_bin"
    NO_QUANTITY = "no_quantity"
    NOT_A_NUMBER = "not_a_number"
    NEGATIVE = "negative"
    FRACTIONAL = "fractional"
    TOO_LARGE = "too_large"
    DUPLICATE = "duplicate"
    CONTRADICTION = "contradiction"


@dataclass(slots=True)
class Report:
    """What became of a file's rows."""

    file: Path
    recorded: int = 0
    known: int = 0
    """Rows that an earlier import of the same file had recorded."""
    refused: Counter[Refusal] = field(default_factory=Counter)
    refused_file: Path | None = None
    listed: int = 0
    """Refused rows that are listed there."""

    @property
    def accepted(self) -> int:
        """Rows that are in the records now."""
        return self.recorded + self.known


class _Refused(Exception):
    def __init__(self, why: Refusal) -> None:
        super().__init__(why)
        self.why = why


def import_file(
    file: Path, database: Engine, bucket: str, as_of: datetime | None = None, refused: Path | None = None
) -> Report:
    """Record the expected quantities in `file`, valid since `as_of` (UTC), or since the file was last changed.

    Raises BinwatchError if the file cannot be read or lacks a column.
    """
    etag, changed = _identity(file)
    report = Report(file)
    moment, source = _moment(as_of, changed), visible(file.name)  # a name may be no text
    store = Store(database)
    with _Refusals(refused or file.with_name(file.name + ".refused.csv"), report) as refusals:
        for chunk in _chunks(_accepted(read_rows(file), refusals)):
            wanted = dict(chunk)
            known = set() if as_of else _known(database, bucket, etag, list(wanted))
            new = [
                NewExpectation(
                    bucket=bucket, bin_id=name, source=source, etag=etag, modified_at=moment, quantity=quantity
                )
                for name, quantity in wanted.items()
                if name not in known
            ]
            recorded = store.add_expectations(new)
            report.recorded += recorded
            report.known += len(wanted) - recorded
    return report


def parse(cells: Cells) -> tuple[str, int]:
    """Bin and quantity of one row, or _Refused."""
    return _bin(cells.bin), _quantity(cells.quantity)


def _bin(text: str) -> str:
    name = bin_id(text)
    if not name:
        raise _Refused(Refusal.NO_BIN)
    # A key instead of a bin's id ("bin-images/00123.jpg") would never meet its photo.
    if len(name) > MAX_BIN or "/" in name or not name.isprintable():
        raise _Refused(Refusal.BAD_BIN)
    return name


def _quantity(text: str) -> int:
    digits = text.strip()
    if not digits:
        raise _Refused(Refusal.NO_QUANTITY)
    value = number(digits)
    if value is None:
        raise _Refused(Refusal.NOT_A_NUMBER)
    if value < 0:
        raise _Refused(Refusal.NEGATIVE)
    if value > MAX_QUANTITY:
        raise _Refused(Refusal.TOO_LARGE)
    if not value.is_integer():
        raise _Refused(Refusal.FRACTIONAL)
    return int(value)


def _accepted(rows: Iterable[Cells], refusals: _Refusals) -> Iterator[tuple[str, int]]:
    """The rows that can be right. Of several rows about one bin, the first."""
    with closing(_Seen()) as seen:
        for cells in rows:
            try:
                name, quantity = parse(cells)
            except _Refused as refused:
                refusals.add(cells, refused.why)
                continue
            first = seen.first(name, quantity)
            if first is None:
                yield name, quantity
            else:
                refusals.add(cells, Refusal.DUPLICATE if first == quantity else Refusal.CONTRADICTION)


class _Refusals:
    """Counts refused rows and lists them in a file as they come. It is made only if there are any, and holds LISTED."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path = path
        self._report = report
        self._opened: TextIO | None = None

    def __enter__(self) -> _Refusals:
        return self

    def add(self, cells: Cells, why: Refusal) -> None:
        self._report.refused[why] += 1
        if self._report.listed < LISTED:
            self._list([(cells.row, _cut(cells.bin), _cut(cells.quantity), why.value)])
            self._report.listed += 1

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._explained(self._opened.close)

    def _list(self, rows: list[tuple[object, ...]]) -> None:
        if self._opened is None:
            self._opened = self._explained(lambda: self._path.open("w", encoding="utf-8", newline=""))
            self._report.refused_file = self._path
            rows = [("row", "bin", "quantity", "reason"), *rows]
        writer = CsvWriter(self._opened)
        self._explained(lambda: writer.writerows(rows))

    def _explained(self, write: Callable[[], T]) -> T:
        try:
            return write()
        except OSError as error:
            raise BinwatchError(
                f"{self._path}: the refused rows cannot be listed there ({error.strerror}); make room, or name another"
                " file with --refused, and import again: what was accepted by then is recorded"
            ) from error


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CELL else text[:MAX_CELL] + "…"


class _Seen:
    """The bins of a file so far, each with its first quantity: on disk, since a small file may have any number."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # a file that SQLite removes by itself
        self._database.execute("CREATE TABLE seen (bin TEXT PRIMARY KEY, quantity INTEGER NOT NULL) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def first(self, name: str, quantity: int) -> int | None:
        """The quantity of the first row about the bin; None if this is the first."""
        added = self._database.execute("INSERT INTO seen VALUES (?, ?) ON CONFLICT DO NOTHING", (name, quantity))
        if added.rowcount:
            return None
        return int(self._database.execute("SELECT quantity FROM seen WHERE bin = ?", (name,)).fetchone()[0])

    def close(self) -> None:
        self._database.close()


def _identity(file: Path) -> tuple[str, datetime]:
    """SHA-256 of the file, and when it was last changed."""
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return digest, datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError as error:
        raise BinwatchError(f"{file}: cannot be read ({error.strerror}); name a CSV or Parquet file") from error


def _moment(as_of: datetime | None, changed: datetime) -> datetime:
    """Since when the quantities hold. A clock that runs ahead must not outdate all that comes until then."""
    now = datetime.now(UTC)
    if as_of is None:
        return min(changed, now)
    moment = as_of.replace(tzinfo=as_of.tzinfo or UTC)
    if moment > now:
        raise BinwatchError(f"--as-of {moment:%Y-%m-%d %H:%M:%S} UTC has not come yet; give a moment in the past")
    return moment


def _known(database: Engine, bucket: str, etag: str, bins: list[str]) -> set[str]:
    """Those of `bins` that this very file was imported for, even if it was copied or touched since."""
    where = (Expectation.bucket == bucket, Expectation.bin_id.in_(bins), Expectation.etag == etag)
    with database.connect() as connection:
        return set(connection.execute(select(Expectation.bin_id).where(*where)).scalars())


def _chunks(rows: Iterator[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk
