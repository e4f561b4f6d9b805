"""Output of the command `count`, as a table, JSON or CSV. JSON and CSV lines are written as soon as they are known."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from binwatch.counts import CLASSES, describe_count, estimate_large_count
from binwatch.safe_csv import SafeCsvWriter
from binwatch.text import escape_unprintable


@dataclass(frozen=True, slots=True)
class ResultLine:
    """One photo's result: `count` is the class's name, or None with the `reason` and `detail` of the error."""

    photo: str
    count: str | None = None
    confidence: float | None = None
    probabilities: list[float] | None = None
    reason: str | None = None
    detail: str | None = None
    distribution: list[float] | None = None
    """Probabilities of 0, 1, … items and of more, if the model distinguishes more numbers than the classes do."""


class Format(StrEnum):
    """Output format."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def write(lines: Iterable[ResultLine], form: Format, out: TextIO) -> tuple[int, int]:
    """Print all lines to `out`; returns the numbers of counted and of failed photos."""
    writers: dict[Format, type[_ResultWriter]]
    writers = {Format.TABLE: _TableWriter, Format.JSON: _JsonWriter, Format.CSV: _CsvWriter}
    writer = writers[form](out)
    counted = failed = 0
    try:
        for line in lines:
            counted, failed = counted + (line.reason is None), failed + (line.reason is not None)
            writer.add(line)
    except BaseException:
        if counted or failed:
            writer.close()  # after an outage, too, print what was counted, and close the JSON array
        raise
    writer.close()
    return counted, failed


class _ResultWriter:
    def __init__(self, out: TextIO) -> None:
        self.out = out

    @abstractmethod
    def add(self, line: ResultLine) -> None: ...

    def close(self) -> None:
        """Finish the output. Most formats have nothing to finish."""


class _TableWriter(_ResultWriter):
    """A table. Prints at the end, since Rich needs all rows to align the columns."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._table = Table("photo", "count", "confidence", "error")

    def add(self, line: ResultLine) -> None:
        name = Text(escape_unprintable(line.photo))
        if line.confidence is None:
            self._table.add_row(name, "–", "", Text(escape_unprintable(f"{line.reason}: {line.detail}"), style="red"))
        else:
            self._table.add_row(name, _in_words(line), f"{line.confidence:.0%}", "")

    def close(self) -> None:
        # A pipe has no width. With 200 columns, a row usually fits on a line.
        Console(file=self.out, width=None if self.out.isatty() else 200).print(self._table)


def _in_words(line: ResultLine) -> str | None:
    """The count as the monitor's pages say it: "3", "about 17 (14 to 19)"."""
    if line.count is None:
        return None
    predicted = CLASSES.index(line.count)
    finer = estimate_large_count(predicted, line.distribution)
    said = describe_count(predicted, finer)
    if finer is None or finer.low == finer.high:
        return said
    return f"{said} ({finer.low} {'or more' if finer.high == finer.open else f'to {finer.high}'})"


class _JsonWriter(_ResultWriter):
    """A JSON array with one object a line."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._separator = "[\n"
        # In another encoding, Python would write missing characters as \xfc, which is not JSON.
        self._ascii = (out.encoding or "").lower() not in {"utf-8", "utf8"}

    def add(self, line: ResultLine) -> None:
        self.out.write(self._separator + json.dumps(asdict(line), ensure_ascii=self._ascii))
        self._separator = ",\n"

    def close(self) -> None:
        self.out.write("[]\n" if self._separator == "[\n" else "\n]\n")


class _CsvWriter(_ResultWriter):
    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._rows = SafeCsvWriter(out)
        self._rows.writerow(["photo", "count", "confidence", *(f"p({name})" for name in CLASSES), "reason", "detail"])

    def add(self, line: ResultLine) -> None:
        probabilities: list[Any] = [*line.probabilities] if line.probabilities else [None] * len(CLASSES)
        self._rows.writerow([line.photo, line.count, line.confidence, *probabilities, line.reason, line.detail])
