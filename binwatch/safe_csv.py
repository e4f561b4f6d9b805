"""CSV that is safe in spreadsheets, which execute cells that begin like a formula; keys may begin with anything.

Every CSV is written here, with an apostrophe before such a text, so that spreadsheets show it as text. Reading removes
the apostrophe, so that texts are unchanged, even those that start with an apostrophe.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import Protocol

# Also after blanks, which some spreadsheets drop, and as full-width characters of East Asian keyboards.
_RUN = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")


class _Out(Protocol):
    def write(self, text: str, /) -> object: ...


class SafeCsvWriter:
    """Like csv.writer, but spreadsheets treat all texts as texts. Numbers stay numbers."""

    def __init__(self, out: _Out, line_end: str = "\r\n") -> None:
        self._rows = csv.writer(out, lineterminator=line_end)

    def writerow(self, cells: Iterable[object]) -> None:
        """Write one row."""
        self._rows.writerow([as_text(cell) if isinstance(cell, str) else cell for cell in cells])

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write several rows."""
        for row in rows:
            self.writerow(row)


def as_text(text: str) -> str:
    """The text, with an apostrophe before it if it begins like a formula."""
    return f"'{text}" if _RUN.match(text) else text


def original(text: str) -> str:
    """The inverse of `as_text`."""
    return text[1:] if text.startswith("'") and _RUN.match(text) else text
