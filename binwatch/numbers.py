"""Parses numbers in files, settings and command lines.

Python's `int` and `float` also accept `1_0` as 10 and digits of other scripts, so typing errors would go unnoticed.
"""

from __future__ import annotations

import re

_INT = re.compile(r"[+-]?[0-9]{1,100}", re.ASCII)
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)


def parse_int(text: str) -> int | None:
    """Parse a whole number, with or without surrounding blanks; None if the text is not one."""
    stripped = text.strip()
    return int(stripped) if _INT.fullmatch(stripped) else None


def parse_float(text: str) -> float | None:
    """Parse a finite number, with or without surrounding blanks; None if the text is not one."""
    stripped = text.strip()
    return float(stripped) if _FLOAT.fullmatch(stripped) else None
