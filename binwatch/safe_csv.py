"""CSV that people open in spreadsheets: those run a cell that begins like a formula, and a key may begin with anything.

Every CSV is written here, with an apostrophe before such a text, which spreadsheets show as text. What we read back
loses it again, so a key goes out and comes in unchanged, even one that has an apostrophe of its own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import Protocol

# Also after blanks, which some spreadsheets drop, and in the full width of East Asian keyboards.
_RUN = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")


class _Out(Protocol):
    def write(self, text: str, /) -> object: ...


class SafeCsvWriter:
    """As csv.writer, but texts are texts wherever the file is opened. Numbers stay numbers."""

    def __init__(self, out: _Out, line_end: str = "\r\n") -> None:
        self._rows = csv.writer(out, lineterminator=line_end)

    def writerow(self, cells: Iterable[object]) -> None:
        """Write one row."""
        self._rows.writerow([as_text(cell) if isinstance(cell, str) else cell for cell in cells])

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write several."""
        for row in rows:
            self.writerow(row)


def as_text(text: str) -> str:
    """What no spreadsheet takes for a formula."""
    return f"'{text}" if _RUN.match(text) else text


def original(text: str) -> str:
    """What `as_text` was given."""
    return text[1:] if text.startswith("'") and _RUN.match(text) else text
