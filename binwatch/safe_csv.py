"""CSV that is safe in spreadsheets, which execute cells that begin like a formula. Keys may begin with any character.

All CSV files are written with this module. It puts an apostrophe before such a text, so that spreadsheets show it as
text. Reading removes the apostrophe, so all texts survive a round trip, even those that start with an apostrophe.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import Protocol

# Also after blanks, which some spreadsheets drop, and as full-width characters of East Asian keyboards.
_FORMULA_START = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")


class _TextSink(Protocol):
    def write(self, text: str, /) -> object: ...


class SafeCsvWriter:
    """Like csv.writer, but spreadsheets treat every text as text. Numbers stay numbers."""

    def __init__(self, out: _TextSink, line_end: str = "\r\n") -> None:
        self._writer = csv.writer(out, lineterminator=line_end)

    def writerow(self, cells: Iterable[object]) -> None:
        """Write one row."""
        self._writer.writerow([escape_formula(cell) if isinstance(cell, str) else cell for cell in cells])

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write several rows."""
        for row in rows:
            self.writerow(row)


def escape_formula(text: str) -> str:
    """Put an apostrophe before a text that begins like a formula."""
    return f"'{text}" if _FORMULA_START.match(text) else text


def unescape_formula(text: str) -> str:
    """Remove the apostrophe of `escape_formula`."""
    return text[1:] if text.startswith("'") and _FORMULA_START.match(text) else text
