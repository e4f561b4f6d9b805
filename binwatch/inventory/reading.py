"""Rows of an inventory file → expected quantities of bins.

Each row is validated, and refused rows are listed in a separate file with the reasons. If the file has articles, a
bin's quantity is the sum of its rows, and one refused row refuses the whole bin.
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
from binwatch.metadata import MAX_ARTICLES, MAX_QUANTITY, Article, clean_text
from binwatch.safe_csv import SafeCsvWriter
from binwatch.text import count_noun, escape_unprintable, preview_names

T = TypeVar("T")

LISTED = 100_000
"""Most refused rows that are listed; more are only counted. A few kilobytes of Parquet may have ten million."""
NAMED = 10
"""Most bins without a photo that a summary names."""
MAX_BIN = 500
"""Most characters of a bin's id. S3's keys have at most 1,024 bytes."""
MAX_CELL = 1000
"""Most characters of a cell in the list of refused rows."""
MAX_KEPT = 500
"""Most characters of a kept column of a bin."""


class Match(StrEnum):
    """How a row's bin was matched with a bin that has a photo."""

    SAME = "same"
    ZEROS = "zeros"
    """Equal except for leading zeros, which spreadsheets drop, or a final ".0", which they add."""
    NONE = "none"
    """No bin with a photo has that id."""


class Refusal(StrEnum):
    """Why a row is refused. The set is closed; docs/operations.md lists it."""

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
"""Refusals because of a row's quantity."""


@dataclass(frozen=True, slots=True)
class InventoryQuantity:
    """The quantity of one bin in a file; `contents` if the file has articles."""

    bin: str
    quantity: int
    has_photo: bool
    contents: list[Article] | None = None
    kept: tuple[str, ...] = ()
    """For each kept column, the distinct texts of the bin's rows."""


@dataclass(slots=True)
class InventoryReport:
    """Result of reading a file."""

    file: Path
    said: str = ""
    """The detected columns and format, in words."""
    photos: int = 0
    """Number of bins with a photo, whether they are in the file or not."""
    rows: int = 0
    recorded: int = 0
    """Bins whose quantity was recorded; `known`: bins whose quantity was recorded before."""
    known: int = 0
    matched: Counter[Match] = field(default_factory=Counter)
    """Number of accepted rows by match."""
    summed: int = 0
    """Number of bins whose quantity is the sum of several rows."""
    without_photo: list[str] = field(default_factory=list)
    """The first NAMED bins of the file without a photo."""
    refused: Counter[Refusal] = field(default_factory=Counter)
    first_refused: str = ""
    """Position and bin of the first refused row."""
    refused_file: Path | None = None
    listed: int = 0
    """Number of refused rows in that file."""

    @property
    def accepted(self) -> int:
        """Number of bins whose quantity is recorded."""
        return self.recorded + self.known

    @property
    def meeting(self) -> int:
        """Number of rows whose bin has a photo."""
        return self.matched.total() - self.matched[Match.NONE]

    def lines(self, *, listed: bool = True) -> list[str]:
        """The report as lines of text; `listed`: with the name of the file that lists the refused rows."""
        lines = [f"{escape_unprintable(str(self.file))}: {self.said}", self._matching()]
        if self.summed:
            bins = count_noun(self.summed, "bin has", "bins have")
            lines.append(f"{bins} several rows, one for each article: their quantities are summed")
        if self.refused:
            reasons = ", ".join(f"{rows:,} {why.replace('_', ' ')}" for why, rows in self.refused.most_common())
            which = "" if self.listed == self.refused.total() else f"the first {self.listed:,} of them "
            first = f" ({self.first_refused}{', …' if self.refused.total() > 1 else ''})"
            lines.append(f"refused: {reasons}{first}" + (f"; {which}listed in {self.refused_file}" if listed else ""))
        return lines

    def _matching(self) -> str:
        meeting, none, zeros = self.meeting, self.matched[Match.NONE], self.matched[Match.ZEROS]
        text = f"{count_noun(self.rows, 'row')}: {count_noun(meeting, 'matches', 'match')} a photo"
        if zeros:
            text += f" ({zeros:,} of them with zeros restored that spreadsheets drop)"
        if none:
            names = preview_names(self.without_photo, len(self.without_photo), none)
            text += f", {count_noun(none, 'does', 'do')} not ({names})"
        return text + (f", {self.refused.total():,} refused" if self.refused else "")


def read_expected(table: Table, bins: BinIndex, refusals: Refusals) -> Iterator[InventoryQuantity]:
    """The quantity of each bin, in the order of the ids. Fills in the refusals' report."""
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
            items = json.loads(contents)[:MAX_ARTICLES] if table.has_articles else None
            columns = zip(*json.loads(kept), strict=True)
            distinct = tuple("; ".join(dict.fromkeys(filter(None, texts)))[:MAX_KEPT] for texts in columns)
            yield InventoryQuantity(bin_id, quantity, has_photo, items, distinct)


class _Refused(Exception):
    def __init__(self, why: Refusal) -> None:
        super().__init__(why)
        self.why = why


def _bin(text: str, bins: BinIndex) -> tuple[str, str | None]:
    """The bin's id in the file, and the matching bin with a photo."""
    name = id_in(text)
    if not name:
        raise _Refused(Refusal.NO_BIN)
    # A key instead of a bin's id ("bin-images/00123") would never match a photo.
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
    """The valid rows, on disk, since a small file may have very many."""

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
        """Store a row; `fits` is the matching bin with a photo. Raises _Refused if bin and article occur twice."""
        article = clean_text(cells.article)
        kept = json.dumps([clean_text(text)[:MAX_KEPT] for text in cells.kept])
        row = (name, article, quantity, fits, cells.row, _cut(cells.bin), _cut(text_of(cells.quantity)), kept)
        added = self._database.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
        if not added.rowcount:
            first = "SELECT quantity FROM rows WHERE name = ? AND article = ?"
            (known,) = self._database.execute(first, (name, article)).fetchone()
            raise _Refused(Refusal.DUPLICATE if known == quantity else Refusal.CONTRADICTION)

    def spoil(self, name: str) -> None:
        """Note that a bin has a refused row."""
        self._database.execute("INSERT INTO spoiled VALUES (?) ON CONFLICT DO NOTHING", (name,))

    def settle(self) -> Iterator[tuple[Cells, Refusal]]:
        """Remove refused bins, once all rows are stored. Gives their rows with the reason."""
        too_large = "SELECT name FROM rows GROUP BY name HAVING sum(quantity) > ?"
        for names, why, parameters in (
            ("SELECT name FROM spoiled", Refusal.INCOMPLETE, ()),
            (too_large, Refusal.TOO_LARGE, (MAX_QUANTITY,)),
        ):
            of_these = f"FROM rows WHERE name IN ({names})"
            for row in self._database.execute(f"SELECT place, bin, cell, article {of_these}", parameters):
                yield Cells(*row), why
            self._database.execute(f"DELETE {of_these}", parameters)
        # If the file has both 00184 and 184, these are two bins, and only one of them can match the photo's bin.
        self._database.execute("CREATE INDEX fitting ON rows (fits)")
        best = "SELECT name FROM rows r WHERE r.fits = rows.fits ORDER BY r.name = r.fits DESC, length(r.name) DESC"
        self._database.execute(f"UPDATE rows SET fits = NULL WHERE name <> ({best} LIMIT 1)")  # noqa: S608

    def expected(self) -> Iterator[tuple[str, int, bool, str, str]]:
        """Bin, quantity, whether it has a photo, and as JSON its articles and kept texts; sorted by bin."""
        yield from self._database.execute(
            "SELECT coalesce(fits, name), sum(quantity), fits IS NOT NULL,"
            " json_group_array(json_object('sku', article, 'name', '', 'quantity', quantity)),"
            " json_group_array(json(kept))"
            " FROM rows GROUP BY name ORDER BY 1"
        )

    def count(self, report: InventoryReport) -> None:
        """Fill in the report's numbers of matching rows and of summed bins, and the bins without a photo."""
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
    """Counts refused rows, and lists the first LISTED in a file, which is created only if there are any.

    Without refused rows, the file of an earlier run is removed, since it is outdated.
    """

    def __init__(self, path: Path, report: InventoryReport, remedy: str) -> None:
        """`remedy`: what to do if `path` cannot be written. Raises BinwatchError if `path` is the inventory file."""
        if path.resolve() == report.file.resolve():
            raise BinwatchError(f"{path}: is the inventory file, and would be lost; copy it to another name first")
        self._path = path
        self._remedy = remedy
        self.report = report
        self._opened: TextIO | None = None

    def __enter__(self) -> Refusals:
        return self

    def add(self, cells: Cells, why: Refusal) -> None:
        """Add a refused row."""
        if not self.report.refused:
            self.report.first_refused = f"row {cells.row}, {escape_unprintable(cells.bin.strip()[:60])!r}"
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
            with suppress(OSError):  # where it cannot be removed, a list could not have been written either
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
