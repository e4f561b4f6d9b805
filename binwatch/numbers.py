"""Parses numbers in files, settings and command lines.

Python's `int` and `float` also accept `1_0` as 10, and digits of other scripts, so typing errors would go unnoticed.
"""

from __future__ import annotations

import re

_WHOLE = re.compile(r"[+-]?[0-9]{1,100}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)


def whole(text: str) -> int | None:
    """The whole number in a text, with or without surrounding blanks; None if it is not one."""
    stripped = text.strip()
    return int(stripped) if _WHOLE.fullmatch(stripped) else None


def number(text: str) -> float | None:
    """The finite number in a text, with or without surrounding blanks; None if it is not one."""
    stripped = text.strip()
    return float(stripped) if _NUMBER.fullmatch(stripped) else None
