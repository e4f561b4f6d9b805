"""Parses quantities as people and spreadsheets write them: 5, 5.0, "5,00", "1.234", "1,234", "1 234", "1'234".

A single separator before three digits may separate thousands or decimals. The other quantities of the column decide; if
they do not, the row is refused rather than guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from binwatch.numbers import parse_float

_BLANKS = re.compile(r"(?<=\d)[ '\u2019\u00a0\u2009\u202f](?=\d{3}(?!\d))")
"""Separators that can only separate thousands."""
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
_DECIMAL = {
    mark: re.compile(rf"[+-]?(\d*{re.escape(mark)}(\d{{1,2}}|\d{{4,}})|(0*|\d{{4,}}){re.escape(mark)}\d+)")
    for mark in ".,"
}
"""Numbers whose mark is certainly a decimal point or comma."""
_THOUSANDS = {
    mark: re.compile(rf"[+-]?[1-9]\d{{0,2}}({re.escape(mark)}\d{{3}})+({re.escape(other)}\d*)?")
    for mark, other in ((".", ","), (",", "."))
}


class DecimalMark(StrEnum):
    """The decimal mark of a column of quantities."""

    POINT = "."
    COMMA = ","
    UNKNOWN = "?"


class Undecided(Exception):
    """A quantity has two possible values."""


def mark_of(quantities: Iterable[str | float]) -> DecimalMark:
    """The decimal mark of a column, or UNKNOWN if its quantities do not decide it."""
    sure: set[str] = set()
    undecided: set[str] = set()
    all_zeros, has_plain = True, False
    for quantity in quantities:
        text = _joined(quantity) if isinstance(quantity, str) else ""
        if _EITHER.fullmatch(text):
            undecided.add(text[-4])
            all_zeros = all_zeros and text.endswith("000")
        elif text.isdigit():
            has_plain = True
        else:
            sure.update(_evidence(text))
    if len(sure) == 1:
        return DecimalMark(sure.pop())
    if len(undecided) != 1 or sure:
        return DecimalMark.UNKNOWN
    mark = undecided.pop()
    # All quantities of a column show decimals ("5,000", "12,000": SAP's three), but only large ones show thousands.
    if has_plain:
        return DecimalMark.COMMA if mark == "." else DecimalMark.POINT
    return DecimalMark(mark) if all_zeros else DecimalMark.UNKNOWN


def value_of(text: str, mark: DecimalMark) -> float | None:
    """The number in a text; None if it is not a number. Raises Undecided."""
    joined = _joined(text)
    if not _EITHER.fullmatch(joined):
        found = _evidence(joined)
        decimal = found.pop() if found else "."
    elif mark is DecimalMark.UNKNOWN:
        raise Undecided
    else:
        decimal = mark
    if decimal == ".":
        return parse_float(joined.replace(",", "") if _THOUSANDS[","].fullmatch(joined) else joined)
    return parse_float(joined.replace(".", "").replace(",", "."))


def _evidence(text: str) -> set[str]:
    """The decimal marks with which the text is a number."""
    other = {".": ",", ",": "."}
    found = {mark for mark, pattern in _DECIMAL.items() if pattern.fullmatch(text)}
    return found | {other[mark] for mark, pattern in _THOUSANDS.items() if pattern.fullmatch(text)}


def _joined(text: str) -> str:
    return _BLANKS.sub("", text.strip())
