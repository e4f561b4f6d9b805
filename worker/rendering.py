"""Output of the command `count`: a table, JSON or CSV. Each line of JSON or CSV is written as soon as it is ready."""

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
    """Result of one photo: `count` is the name of its class, or None with the `reason` and `detail` of the error."""

    photo: str
    count: str | None = None
    confidence: float | None = None
    probabilities: list[float] | None = None
    reason: str | None = None
    detail: str | None = None
    distribution: list[float] | None = None
    """Probabilities of 0, 1, … items and of more, if the model distinguishes more quantities than the classes do."""


class Format(StrEnum):
    """Output format."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def write_results(lines: Iterable[ResultLine], output_format: Format, out: TextIO) -> tuple[int, int]:
    """Write all lines to `out`; return the numbers of counted and of failed photos."""
    writers: dict[Format, type[_ResultWriter]]
    writers = {Format.TABLE: _TableWriter, Format.JSON: _JsonWriter, Format.CSV: _CsvWriter}
    writer = writers[output_format](out)
    counted = failed = 0
    try:
        for line in lines:
            counted += line.reason is None
            failed += line.reason is not None
            writer.add(line)
    except BaseException:
        if counted or failed:
            writer.close()  # after any interruption, print the counts so far, and close the JSON array
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
    """A table, printed at the end, since Rich needs all rows to align the columns."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._table = Table("photo", "count", "confidence", "error")

    def add(self, line: ResultLine) -> None:
        name = Text(escape_unprintable(line.photo))
        if line.confidence is None:
            self._table.add_row(name, "–", "", Text(escape_unprintable(f"{line.reason}: {line.detail}"), style="red"))
        else:
            self._table.add_row(name, _describe_count(line), f"{line.confidence:.0%}", "")

    def close(self) -> None:
        # A pipe has no width; in 200 columns, a row usually fits on a line.
        Console(file=self.out, width=None if self.out.isatty() else 200).print(self._table)


def _describe_count(line: ResultLine) -> str | None:
    """Return the count as the monitor's pages show it: "3", "about 17 (14 to 19)"."""
    if line.count is None:
        return None
    predicted = CLASSES.index(line.count)
    interval = estimate_large_count(predicted, line.distribution)
    text = describe_count(predicted, interval)
    if interval is None or interval.low == interval.high:
        return text
    return f"{text} ({interval.low} {'or more' if interval.high == interval.open else f'to {interval.high}'})"


class _JsonWriter(_ResultWriter):
    """A JSON array with one object per line."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._separator = "[\n"
        # In other encodings, Python would write unsupported characters as \xfc, which is not JSON.
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
