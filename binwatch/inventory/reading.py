"""Rows of an inventory file → expected quantities of bins.

Every row is judged by itself, and those that cannot be right are listed in a file of their own, each with the reason.
Where the file has articles, a bin's quantity is the sum of its rows, and a bin of which a row is refused is refused.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import TextIO, TypeVar

from binwatch.errors import BinwatchError
from binwatch.inventory.bins import BinIndex, SeveralBins, id_in
from binwatch.inventory.quantities import DecimalMark, Undecided, mark_of, value_of
from binwatch.inventory.tables import Cells, Table, text_of
from binwatch.metadata import MAX_ITEMS, MAX_QUANTITY, Article, printable
from binwatch.safe_csv import SafeCsvWriter
from binwatch.text import many, some_of, visible

T = TypeVar("T")

LISTED = 100_000
"""Refused rows that are listed; the others are counted. A few kilobytes of Parquet may hold ten million."""
NAMED = 10
"""Bins without a photo that a summary names."""
MAX_BIN = 500
"""Characters of a bin's id. S3's keys have at most 1,024 bytes."""
MAX_CELL = 1000
"""Characters of a cell that are listed."""
MAX_KEPT = 500
"""Characters that are passed on of one kept column of a bin."""


class Match(StrEnum):
    """How a row's bin was matched with one that has a photo."""

    SAME = "same"
    ZEROS = "zeros"
    """But for zeros at its start, which spreadsheets drop, or a ".0" at its end, which they add."""
    NONE = "none"
    """No bin with a photo has that id."""


class Refusal(StrEnum):
    """Why a row is not taken. The set is closed; docs/operations.md lists it."""

    NO_BIN = "no_bin"
    BAD_BIN = "bad_bin"
    SEVERAL_BINS = "several_bins"
    NO_QUANTITY = "no_quantity"
    NOT_A_NUMBER = "not_a_number"
    UNDECIDED = "undecided"
    NEGATIVE = "negative"
    FRACTIONAL = "fractional"
    TOO_LARGE = "too_large"
    DUPLICATE = "duplicate"
    CONTRADICTION = "contradiction"
    INCOMPLETE = "incomplete"


OF_QUANTITIES = frozenset(
    (
        Refusal.NO_QUANTITY,
        Refusal.NOT_A_NUMBER,
        Refusal.UNDECIDED,
        Refusal.NEGATIVE,
        Refusal.FRACTIONAL,
        Refusal.TOO_LARGE,
    )
)
"""Those that are about a row's quantity."""


@dataclass(frozen=True, slots=True)
class InventoryQuantity:
    """What a file says of one bin; `contents` if it says that by article."""

    bin: str
    quantity: int
    has_photo: bool
    contents: list[Article] | None = None
    kept: tuple[str, ...] = ()
    """Of each kept column, the different texts of the bin's rows."""


@dataclass(slots=True)
class InventoryReport:
    """What became of a file's rows."""

    file: Path
    said: str = ""
    """Which columns were read, and how."""
    photos: int = 0
    """Bins that have a photo, whether in the file or not."""
    rows: int = 0
    recorded: int = 0
    """Bins whose quantity was recorded, and those that had it from an earlier import:"""
    known: int = 0
    matched: Counter[Match] = field(default_factory=Counter)
    """Rows, those that are refused not among them."""
    summed: int = 0
    """Bins whose quantity is the sum of several rows."""
    without_photo: list[str] = field(default_factory=list)
    """The first NAMED bins of the file that have none."""
    refused: Counter[Refusal] = field(default_factory=Counter)
    first_refused: str = ""
    """Where the first refused row is, and its bin."""
    refused_file: Path | None = None
    listed: int = 0
    """Refused rows that are listed there."""

    @property
    def accepted(self) -> int:
        """Bins whose quantity is in the records now."""
        return self.recorded + self.known

    @property
    def meeting(self) -> int:
        """Rows whose bin has a photo."""
        return self.matched.total() - self.matched[Match.NONE]

    def lines(self, *, listed: bool = True) -> list[str]:
        """What to tell a person; `listed` also where the refused rows are listed."""
        lines = [f"{visible(str(self.file))}: {self.said}", self._matching()]
        if self.summed:
            bins = many(self.summed, "bin has", "bins have")
            lines.append(f"{bins} several rows, one for each article: their quantities are summed")
        if self.refused:
            reasons = ", ".join(f"{rows:,} {why.replace('_', ' ')}" for why, rows in self.refused.most_common())
            which = "" if self.listed == self.refused.total() else f"the first {self.listed:,} of them "
            first = f" ({self.first_refused}{', …' if self.refused.total() > 1 else ''})"
            lines.append(f"refused: {reasons}{first}" + (f"; {which}listed in {self.refused_file}" if listed else ""))
        return lines

    def _matching(self) -> str:
        meeting, none, zeros = self.meeting, self.matched[Match.NONE], self.matched[Match.ZEROS]
        text = f"{many(self.rows, 'row')}: {many(meeting, 'matches', 'match')} a photo"
        if zeros:
            text += f" ({zeros:,} of them with zeros restored that spreadsheets drop)"
        if none:
            names = some_of(self.without_photo, len(self.without_photo), none)
            text += f", {many(none, 'does', 'do')} not ({names})"
        return text + (f", {self.refused.total():,} refused" if self.refused else "")


def read_expected(table: Table, bins: BinIndex, refusals: Refusals) -> Iterator[InventoryQuantity]:
    """What a table says of each bin, in the order of their ids; counts go into the refusals' report."""
    report = refusals.report
    report.said = table.said
    mark = mark_of(cells.quantity for cells in table.rows())
    with closing(_Rows()) as rows:
        for cells in table.rows():
            report.rows += 1
            name = None
            try:
                name, fits = _bin(cells.bin, bins)
                rows.add(cells, name, fits, _quantity(cells.quantity, mark))
            except _Refused as refused:
                refusals.add(cells, refused.why)
                if table.has_articles and name is not None:
                    rows.spoil(name)
        for cells, why in rows.settle():
            refusals.add(cells, why)
        rows.count(report)
        for bin_id, quantity, has_photo, contents, kept in rows.expected():
            items = json.loads(contents)[:MAX_ITEMS] if table.has_articles else None
            yield InventoryQuantity(bin_id, quantity, has_photo, items, _joined(json.loads(kept)))


def _joined(rows: list[list[str]]) -> tuple[str, ...]:
    """Of each column, the different texts of a bin's rows."""
    return tuple("; ".join(dict.fromkeys(filter(None, texts)))[:MAX_KEPT] for texts in zip(*rows, strict=True))


class _Refused(Exception):
    def __init__(self, why: Refusal) -> None:
        super().__init__(why)
        self.why = why


def _bin(text: str, bins: BinIndex) -> tuple[str, str | None]:
    """The bin's id as the file has it, and the bin with a photo that it means."""
    name = id_in(text)
    if not name:
        raise _Refused(Refusal.NO_BIN)
    # A key instead of a bin's id ("bin-images/00123") would never meet its photo.
    if len(name) > MAX_BIN or "/" in name or not name.isprintable():
        raise _Refused(Refusal.BAD_BIN)
    try:
        return name, bins.match(name)
    except SeveralBins:
        raise _Refused(Refusal.SEVERAL_BINS) from None


def _quantity(cell: str | float, mark: DecimalMark) -> int:
    if isinstance(cell, str) and not cell.strip():
        raise _Refused(Refusal.NO_QUANTITY)
    try:
        value = value_of(cell, mark) if isinstance(cell, str) else cell
    except Undecided:
        raise _Refused(Refusal.UNDECIDED) from None
    if value is None or not isfinite(value if isinstance(cell, float) else 0):
        raise _Refused(Refusal.NOT_A_NUMBER)
    if value < 0:
        raise _Refused(Refusal.NEGATIVE)
    if value > MAX_QUANTITY:
        raise _Refused(Refusal.TOO_LARGE)
    if not value.is_integer():
        raise _Refused(Refusal.FRACTIONAL)
    return int(value)


class _Rows:
    """The rows that can be right: on disk, since a small file may have any number of them."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # a file that SQLite removes by itself
        self._database.executescript(
            """
            CREATE TABLE rows (name TEXT, article TEXT, quantity INTEGER, fits TEXT, place INTEGER, bin TEXT, cell TEXT,
                               kept TEXT, PRIMARY KEY (name, article)) WITHOUT ROWID;
            CREATE TABLE spoiled (name TEXT PRIMARY KEY) WITHOUT ROWID;
            BEGIN;
            """
        )

    def add(self, cells: Cells, name: str, fits: str | None, quantity: int) -> None:
        """Keep a row; `fits` is the bin with a photo that it means. Raises _Refused if the file has had it before."""
        article = printable(cells.article)
        kept = json.dumps([printable(text)[:MAX_KEPT] for text in cells.kept])
        row = (name, article, quantity, fits, cells.row, _cut(cells.bin), _cut(text_of(cells.quantity)), kept)
        added = self._database.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
        if not added.rowcount:
            first = "SELECT quantity FROM rows WHERE name = ? AND article = ?"
            (known,) = self._database.execute(first, (name, article)).fetchone()
            raise _Refused(Refusal.DUPLICATE if known == quantity else Refusal.CONTRADICTION)

    def spoil(self, name: str) -> None:
        """Note that a row of a bin is refused."""
        self._database.execute("INSERT INTO spoiled VALUES (?) ON CONFLICT DO NOTHING", (name,))

    def settle(self) -> Iterator[tuple[Cells, Refusal]]:
        """Call it when all rows are in. Gives those that are refused as parts of their bins."""
        too_large = "SELECT name FROM rows GROUP BY name HAVING sum(quantity) > ?"
        for names, why, parameters in (
            ("SELECT name FROM spoiled", Refusal.INCOMPLETE, ()),
            (too_large, Refusal.TOO_LARGE, (MAX_QUANTITY,)),
        ):
            of_these = f"FROM rows WHERE name IN ({names})"
            for row in self._database.execute(f"SELECT place, bin, cell, article {of_these}", parameters):
                yield Cells(*row), why
            self._database.execute(f"DELETE {of_these}", parameters)
        # Where the file has 00184 as well as 184, the latter is another bin; and only one can be the bin of a photo.
        self._database.execute("CREATE INDEX fitting ON rows (fits)")
        best = "SELECT name FROM rows r WHERE r.fits = rows.fits ORDER BY r.name = r.fits DESC, length(r.name) DESC"
        self._database.execute(f"UPDATE rows SET fits = NULL WHERE name <> ({best} LIMIT 1)")  # noqa: S608

    def expected(self) -> Iterator[tuple[str, int, bool, str, str]]:
        """Bin, quantity, whether it has a photo, its articles and its rows' kept texts as JSON: by bin."""
        yield from self._database.execute(
            "SELECT coalesce(fits, name), sum(quantity), fits IS NOT NULL,"
            " json_group_array(json_object('sku', article, 'name', '', 'quantity', quantity)),"
            " json_group_array(json(kept))"
            " FROM rows GROUP BY name ORDER BY 1"
        )

    def count(self, report: InventoryReport) -> None:
        """Fill in how many rows match a photo, and which do not."""
        match = "CASE WHEN fits IS NULL THEN 'none' WHEN fits = name THEN 'same' ELSE 'zeros' END"
        found = self._database.execute(f"SELECT {match}, count(*) FROM rows GROUP BY 1")  # noqa: S608
        report.matched.update({Match(kind): rows for kind, rows in found})
        (report.summed,) = self._database.execute(
            "SELECT count(*) FROM (SELECT name FROM rows GROUP BY name HAVING count(*) > 1)"
        ).fetchone()
        without = "SELECT name FROM rows WHERE fits IS NULL GROUP BY name ORDER BY min(place) LIMIT ?"
        report.without_photo = [name for (name,) in self._database.execute(without, (NAMED,))]

    def close(self) -> None:
        self._database.close()


class Refusals:
    """Counts refused rows and lists them in a file as they come. It is made only if there are any, and holds LISTED.

    If there are none, the file of an earlier reading is removed: it would speak of rows that are accepted by now.
    """

    def __init__(self, path: Path, report: InventoryReport, remedy: str) -> None:
        """`remedy` is what to do if `path` cannot be written. Raises BinwatchError if it is the inventory file."""
        if path.resolve() == report.file.resolve():
            raise BinwatchError(f"{path}: is the inventory file, and would be lost; copy it to another name first")
        self._path = path
        self._remedy = remedy
        self.report = report
        self._opened: TextIO | None = None

    def __enter__(self) -> Refusals:
        return self

    def add(self, cells: Cells, why: Refusal) -> None:
        """Take in one row."""
        if not self.report.refused:
            self.report.first_refused = f"row {cells.row}, {visible(cells.bin.strip()[:60])!r}"
        self.report.refused[why] += 1
        if self.report.listed == LISTED:
            return
        rows: list[tuple[object, ...]] = [(cells.row, _cut(cells.bin), _cut(text_of(cells.quantity)), why.value)]
        if self._opened is None:
            self._opened = self._explained(lambda: self._path.open("w", encoding="utf-8", newline=""))
            self.report.refused_file = self._path
            rows.insert(0, ("row", "bin", "quantity", "reason"))
        writer = SafeCsvWriter(self._opened)
        self._explained(lambda: writer.writerows(rows))
        self.report.listed += 1

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if self._opened is not None:
            self._explained(self._opened.close)
        elif failed is None:
            with suppress(OSError):  # if it cannot be removed, a list could not be written there either
                self._path.unlink()

    def _explained(self, write: Callable[[], T]) -> T:
        try:
            return write()
        except OSError as error:
            raise BinwatchError(
                f"{self._path}: the refused rows cannot be listed there ({error.strerror}); {self._remedy}"
            ) from error


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CELL else text[:MAX_CELL] + "…"
