"""Parses quantities as people and spreadsheets write them: 5, 5.0, "5,00", "1.234", "1,234", "1 234", "1'234".

A single separator before three digits may separate thousands or decimals. The other quantities of the column decide
which; if they cannot, the row is refused, and no value is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from binwatch.numbers import parse_float

_THOUSANDS_BLANKS = re.compile(r"(?<=\d)[ '\u2019\u00a0\u2009\u202f](?=\d{3}(?!\d))")
"""Blanks and apostrophes between digits, which can only separate thousands."""
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
_DECIMAL = {
    mark: re.compile(rf"[+-]?(\d*{re.escape(mark)}(\d{{1,2}}|\d{{4,}})|(0*|\d{{4,}}){re.escape(mark)}\d+)")
    for mark in ".,"
}
"""Decimal mark → numbers in which it cannot separate thousands."""
_THOUSANDS = {
    mark: re.compile(rf"[+-]?[1-9]\d{{0,2}}({re.escape(mark)}\d{{3}})+({re.escape(other)}\d*)?")
    for mark, other in ((".", ","), (",", "."))
}
"""Thousands separator → numbers in which it separates thousands, or may do so: ambiguous ones match, too."""


class DecimalMark(StrEnum):
    """The decimal mark of a column of quantities."""

    POINT = "."
    COMMA = ","
    UNKNOWN = "?"


class AmbiguousQuantity(Exception):
    """A quantity has two possible values."""


def detect_decimal_mark(quantities: Iterable[str | float]) -> DecimalMark:
    """Return the decimal mark of a column, or UNKNOWN if its quantities do not show it."""
    certain: set[str] = set()
    ambiguous: set[str] = set()
    all_zeros, has_plain = True, False
    for quantity in quantities:
        text = _without_blanks(quantity) if isinstance(quantity, str) else ""
        if _AMBIGUOUS.fullmatch(text):
            ambiguous.add(text[-4])
            all_zeros = all_zeros and text.endswith("000")
        elif text.isdigit():
            has_plain = True
        else:
            certain.update(_possible_marks(text))
    if len(certain) == 1:
        return DecimalMark(certain.pop())
    if len(ambiguous) != 1 or certain:
        return DecimalMark.UNKNOWN
    mark = ambiguous.pop()
    # Decimals appear in all quantities of a column ("5,000", "12,000": SAP writes three), but thousands separators only
    # in large ones.
    if has_plain:
        return DecimalMark.COMMA if mark == "." else DecimalMark.POINT
    return DecimalMark(mark) if all_zeros else DecimalMark.UNKNOWN


def parse_quantity(text: str, mark: DecimalMark) -> float | None:
    """Return the number in a text, or None if it is not a number.

    `mark` is the decimal mark of the column. Raises AmbiguousQuantity if the value depends on it and it is unknown.
    """
    text = _without_blanks(text)
    if not _AMBIGUOUS.fullmatch(text):
        marks = _possible_marks(text)
        decimal = marks.pop() if marks else "."
    elif mark is DecimalMark.UNKNOWN:
        raise AmbiguousQuantity
    else:
        decimal = mark
    if decimal == ".":
        return parse_float(text.replace(",", "") if _THOUSANDS[","].fullmatch(text) else text)
    return parse_float(text.replace(".", "").replace(",", "."))


def _possible_marks(text: str) -> set[str]:
    """Return the decimal marks with which the text is a number; none if it has no separators."""
    other = {".": ",", ",": "."}
    marks = {mark for mark, pattern in _DECIMAL.items() if pattern.fullmatch(text)}
    return marks | {other[separator] for separator, pattern in _THOUSANDS.items() if pattern.fullmatch(text)}


def _without_blanks(text: str) -> str:
    return _THOUSANDS_BLANKS.sub("", text.strip())
