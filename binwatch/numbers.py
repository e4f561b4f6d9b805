"""Numbers in texts that people and programs write: files, settings, the command line.

Python's own `int` and `float` also take `1_0` for 10 and digits of other scripts: a typing error would be counted.
"""

from __future__ import annotations

import re

_WHOLE = re.compile(r"[+-]?[0-9]{1,100}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)


def whole(text: str) -> int | None:
    """A whole number, with or without blanks around it; None if the text is none."""
    stripped = text.strip()
    return int(stripped) if _WHOLE.fullmatch(stripped) else None


def number(text: str) -> float | None:
    """A number, with or without blanks around it; None if the text is none. There is no infinity and no NaN."""
    stripped = text.strip()
    return float(stripped) if _NUMBER.fullmatch(stripped) else None
