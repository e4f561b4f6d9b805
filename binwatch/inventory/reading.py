"""Turns the rows of an inventory file into expected quantities of bins.

Each row is validated, and refused rows are listed in a separate file with the reasons. If the file has articles, a
bin's quantity is the sum of its rows, and the whole bin is refused if one of its rows is.
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
from binwatch.inventory.bins import AmbiguousBin, BinIndex, bin_in_cell
from binwatch.inventory.quantities import AmbiguousQuantity, DecimalMark, detect_decimal_mark, parse_quantity
from binwatch.inventory.tables import Cells, Table, cell_text
from binwatch.metadata import MAX_ARTICLES, MAX_QUANTITY, Article, clean_text
from binwatch.safe_csv import SafeCsvWriter
from binwatch.text import count_noun, escape_unprintable, preview_names

T = TypeVar("T")

MAX_LISTED_ROWS = 100_000
"""Maximum number of refused rows in their list. Further ones are only counted, since a few kilobytes of Parquet may
contain ten million."""
_MAX_NAMED_BINS = 10
"""Maximum number of bins without a photo that a summary names."""
_MAX_BIN_CHARACTERS = 500
"""Maximum length of a bin's id. S3's keys have at most 1,024 bytes."""
_MAX_CELL_CHARACTERS = 1000
"""Maximum length of a cell in the list of refused rows."""
_MAX_KEPT_CHARACTERS = 500
"""Maximum length of a bin's text in a kept column."""


class Match(StrEnum):
    """How a row's bin was matched with a bin that has a photo."""

    SAME = "same"
    ZEROS = "zeros"
    """Same id except for leading zeros, which spreadsheets drop, or a final ".0", which they add."""
    NONE = "none"
    """No bin with a photo has this id."""


class Refusal(StrEnum):
    """Reason why a row is refused. docs/operations.md lists all reasons."""

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


QUANTITY_REFUSALS = frozenset(
    (
        Refusal.NO_QUANTITY,
        Refusal.NOT_A_NUMBER,
        Refusal.UNDECIDED,
        Refusal.NEGATIVE,
        Refusal.FRACTIONAL,
        Refusal.TOO_LARGE,
    )
)
"""Reasons that concern the quantity of a row."""


@dataclass(frozen=True, slots=True)
class InventoryQuantity:
    """The quantity of one bin in a file."""

    bin: str
    quantity: int
    has_photo: bool
    contents: list[Article] | None = None
    """The bin's articles; None if the file has no articles."""
    kept: tuple[str, ...] = ()
    """The distinct texts of the bin's rows, joined, for each kept column."""


@dataclass(slots=True)
class InventoryReport:
    """The result of reading a file."""

    file: Path
    description: str = ""
    """The detected columns and format as text."""
    photos: int = 0
    """Number of bins with a photo, including those that are not in the file."""
    rows: int = 0
    recorded: int = 0
    """Number of bins whose quantity was recorded by this import."""
    known: int = 0
    """Number of bins whose quantity was recorded before."""
    matched: Counter[Match] = field(default_factory=Counter)
    """Number of accepted rows for each kind of match."""
    summed: int = 0
    """Number of bins whose quantity is the sum of several rows."""
    without_photo: list[str] = field(default_factory=list)
    """The first _MAX_NAMED_BINS bins of the file without a photo."""
    refused: Counter[Refusal] = field(default_factory=Counter)
    first_refused: str = ""
    """Row number and bin of the first refused row."""
    refused_file: Path | None = None
    listed: int = 0
    """Number of refused rows listed in `refused_file`."""

    @property
    def accepted(self) -> int:
        """Number of bins whose quantity was recorded by this or an earlier import."""
        return self.recorded + self.known

    @property
    def rows_with_photo(self) -> int:
        """Number of rows whose bin has a photo."""
        return self.matched.total() - self.matched[Match.NONE]

    def lines(self, *, listed: bool = True) -> list[str]:
        """Return the report as lines of text; `listed`: mention the file that lists the refused rows."""
        lines = [f"{escape_unprintable(str(self.file))}: {self.description}", self._match_summary()]
        if self.summed:
            bins = count_noun(self.summed, "bin has", "bins have")
            lines.append(f"{bins} several rows, one for each article: their quantities are summed")
        if self.refused:
            total = self.refused.total()
            reasons = ", ".join(f"{rows:,} {reason.replace('_', ' ')}" for reason, rows in self.refused.most_common())
            line = f"refused: {reasons} ({self.first_refused}{', …' if total > 1 else ''})"
            if listed:
                extent = "" if self.listed == total else f"the first {self.listed:,} of them "
                line += f"; {extent}listed in {self.refused_file}"
            lines.append(line)
        return lines

    def _match_summary(self) -> str:
        text = f"{count_noun(self.rows, 'row')}: {count_noun(self.rows_with_photo, 'matches', 'match')} a photo"
        if zeros := self.matched[Match.ZEROS]:
            text += f" ({zeros:,} of them with zeros restored that spreadsheets drop)"
        if unmatched := self.matched[Match.NONE]:
            names = preview_names(self.without_photo, len(self.without_photo), unmatched)
            text += f", {count_noun(unmatched, 'does', 'do')} not ({names})"
        return text + (f", {self.refused.total():,} refused" if self.refused else "")


def read_expected(table: Table, bins: BinIndex, refusals: Refusals) -> Iterator[InventoryQuantity]:
    """Yield the quantity of each bin, in the order of the ids, and fill in the report of `refusals`."""
    report = refusals.report
    report.description = table.description
    mark = detect_decimal_mark(cells.quantity for cells in table.rows())
    with closing(_RowStore()) as rows:
        for cells in table.rows():
            report.rows += 1
            name = None
            try:
                name, matched_bin = _match_bin(cells.bin, bins)
                rows.add(cells, name, matched_bin, _validate_quantity(cells.quantity, mark))
            except _RowRefused as error:
                refusals.add(cells, error.reason)
                if table.has_articles and name is not None:
                    rows.mark_incomplete(name)
        for cells, reason in rows.remove_refused_bins():
            refusals.add(cells, reason)
        rows.fill_in(report)
        for bin_id, quantity, has_photo, contents, kept in rows.quantities():
            articles = json.loads(contents)[:MAX_ARTICLES] if table.has_articles else None
            columns = zip(*json.loads(kept), strict=True)
            texts = tuple("; ".join(dict.fromkeys(filter(None, column)))[:_MAX_KEPT_CHARACTERS] for column in columns)
            yield InventoryQuantity(bin_id, quantity, has_photo, articles, texts)


class _RowRefused(Exception):
    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason = reason


def _match_bin(text: str, bins: BinIndex) -> tuple[str, str | None]:
    """Return the bin's id in the file, and the matching bin with a photo. Raises _RowRefused."""
    name = bin_in_cell(text)
    if not name:
        raise _RowRefused(Refusal.NO_BIN)
    # A key instead of a bin's id ("bin-images/00123") would never match a photo.
    if len(name) > _MAX_BIN_CHARACTERS or "/" in name or not name.isprintable():
        raise _RowRefused(Refusal.BAD_BIN)
    try:
        return name, bins.match(name)
    except AmbiguousBin:
        raise _RowRefused(Refusal.SEVERAL_BINS) from None


def _validate_quantity(cell: str | float, mark: DecimalMark) -> int:
    if isinstance(cell, str) and not cell.strip():
        raise _RowRefused(Refusal.NO_QUANTITY)
    try:
        value = parse_quantity(cell, mark) if isinstance(cell, str) else cell
    except AmbiguousQuantity:
        raise _RowRefused(Refusal.UNDECIDED) from None
    if value is None or not isfinite(value if isinstance(cell, float) else 0):
        raise _RowRefused(Refusal.NOT_A_NUMBER)
    if value < 0:
        raise _RowRefused(Refusal.NEGATIVE)
    if value > MAX_QUANTITY:
        raise _RowRefused(Refusal.TOO_LARGE)
    if not value.is_integer():
        raise _RowRefused(Refusal.FRACTIONAL)
    return int(value)


class _RowStore:
    """The valid rows of a file. They are stored on disk, since a small file may have millions."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # a temporary file that SQLite removes
        self._database.executescript(
            """
            CREATE TABLE rows (name TEXT, article TEXT, quantity INTEGER, matched_bin TEXT, row INTEGER,
                               bin_cell TEXT, quantity_cell TEXT, kept TEXT, PRIMARY KEY (name, article)) WITHOUT ROWID;
            CREATE TABLE incomplete (name TEXT PRIMARY KEY) WITHOUT ROWID;
            BEGIN;
            """
        )

    def add(self, cells: Cells, name: str, matched_bin: str | None, quantity: int) -> None:
        """Store a row; `matched_bin` is the matching bin with a photo.

        Raises _RowRefused if there is a row with the same bin and article.
        """
        article = clean_text(cells.article)
        kept = json.dumps([clean_text(text)[:_MAX_KEPT_CHARACTERS] for text in cells.kept])
        cell_texts = _cut(cells.bin), _cut(cell_text(cells.quantity))
        row = (name, article, quantity, matched_bin, cells.row, *cell_texts, kept)
        added = self._database.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
        if not added.rowcount:
            first = "SELECT quantity FROM rows WHERE name = ? AND article = ?"
            (first_quantity,) = self._database.execute(first, (name, article)).fetchone()
            raise _RowRefused(Refusal.DUPLICATE if first_quantity == quantity else Refusal.CONTRADICTION)

    def mark_incomplete(self, name: str) -> None:
        """Note that a bin has a refused row."""
        self._database.execute("INSERT INTO incomplete VALUES (?) ON CONFLICT DO NOTHING", (name,))

    def remove_refused_bins(self) -> Iterator[tuple[Cells, Refusal]]:
        """Remove bins that are incomplete or whose sum is too large, and yield their rows with the reason.

        Call it once all rows are stored. It also leaves each bin with a photo matched to only one name of the file.
        """
        too_large = "SELECT name FROM rows GROUP BY name HAVING sum(quantity) > ?"
        for names, reason, parameters in (
            ("SELECT name FROM incomplete", Refusal.INCOMPLETE, ()),
            (too_large, Refusal.TOO_LARGE, (MAX_QUANTITY,)),
        ):
            refused = f"FROM rows WHERE name IN ({names})"
            for row in self._database.execute(f"SELECT row, bin_cell, quantity_cell, article {refused}", parameters):
                yield Cells(*row), reason
            self._database.execute(f"DELETE {refused}", parameters)
        # If the file has both 00184 and 184, these are two bins, and only one of them can be the photo's bin.
        self._database.execute("CREATE INDEX rows_by_matched_bin ON rows (matched_bin)")
        best_match = (
            "SELECT name FROM rows r WHERE r.matched_bin = rows.matched_bin"
            " ORDER BY r.name = r.matched_bin DESC, length(r.name) DESC LIMIT 1"
        )
        self._database.execute(f"UPDATE rows SET matched_bin = NULL WHERE name <> ({best_match})")  # noqa: S608

    def quantities(self) -> Iterator[tuple[str, int, bool, str, str]]:
        """Yield each bin, its quantity, whether it has a photo, and its articles and kept texts as JSON, by bin."""
        yield from self._database.execute(
            "SELECT coalesce(matched_bin, name), sum(quantity), matched_bin IS NOT NULL,"
            " json_group_array(json_object('sku', article, 'name', '', 'quantity', quantity)),"
            " json_group_array(json(kept))"
            " FROM rows GROUP BY name ORDER BY 1"
        )

    def fill_in(self, report: InventoryReport) -> None:
        """Set the report's numbers of matching rows and summed bins, and its bins without a photo."""
        kind = "CASE WHEN matched_bin IS NULL THEN 'none' WHEN matched_bin = name THEN 'same' ELSE 'zeros' END"
        matched = self._database.execute(f"SELECT {kind}, count(*) FROM rows GROUP BY 1")  # noqa: S608
        report.matched.update({Match(match): rows for match, rows in matched})
        (report.summed,) = self._database.execute(
            "SELECT count(*) FROM (SELECT name FROM rows GROUP BY name HAVING count(*) > 1)"
        ).fetchone()
        without_photo = "SELECT name FROM rows WHERE matched_bin IS NULL GROUP BY name ORDER BY min(row) LIMIT ?"
        report.without_photo = [name for (name,) in self._database.execute(without_photo, (_MAX_NAMED_BINS,))]

    def close(self) -> None:
        self._database.close()


class Refusals:
    """Counts the refused rows, and lists the first MAX_LISTED_ROWS in a file.

    The file is created for the first refused row. If there is none, the file of an earlier run is removed as outdated.
    """

    def __init__(self, path: Path, report: InventoryReport, remedy: str) -> None:
        """Prepare the list at `path`; `remedy` tells the user what to do if it cannot be written.

        Raises BinwatchError if `path` is the inventory file.
        """
        if path.resolve() == report.file.resolve():
            raise BinwatchError(f"{path}: is the inventory file, and would be lost; copy it to another name first")
        self._path = path
        self._remedy = remedy
        self.report = report
        self._list: TextIO | None = None

    def __enter__(self) -> Refusals:
        return self

    def add(self, cells: Cells, reason: Refusal) -> None:
        """Add a refused row. Raises BinwatchError if it cannot be listed."""
        if not self.report.refused:
            self.report.first_refused = f"row {cells.row}, {escape_unprintable(cells.bin.strip()[:60])!r}"
        self.report.refused[reason] += 1
        if self.report.listed == MAX_LISTED_ROWS:
            return
        rows: list[tuple[object, ...]] = [(cells.row, _cut(cells.bin), _cut(cell_text(cells.quantity)), reason.value)]
        if self._list is None:
            self._list = self._attempt(lambda: self._path.open("w", encoding="utf-8", newline=""))
            self.report.refused_file = self._path
            rows.insert(0, ("row", "bin", "quantity", "reason"))
        writer = SafeCsvWriter(self._list)
        self._attempt(lambda: writer.writerows(rows))
        self.report.listed += 1

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._list is not None:
            self._attempt(self._list.close)
        elif error is None:
            with suppress(OSError):  # if it cannot be removed, a list could not have been written either
                self._path.unlink()

    def _attempt(self, operation: Callable[[], T]) -> T:
        """Access the list. Raises BinwatchError with the remedy if that fails."""
        try:
            return operation()
        except OSError as error:
            raise BinwatchError(
                f"{self._path}: the refused rows cannot be listed there ({error.strerror}); {self._remedy}"
            ) from error


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CELL_CHARACTERS else text[:_MAX_CELL_CHARACTERS] + "…"
