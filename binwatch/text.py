"""Makes external texts, such as keys and file names, safe to print."""

from __future__ import annotations

from collections.abc import Sequence


def visible(text: str) -> str:
    """The text with line breaks, control codes, direction marks and invalid Unicode as escapes, such as "a\\nb".

    It cannot control a terminal, start a new line, or fail to be encoded.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def noun(number: int, one: str, several: str | None = None) -> str:
    """The noun after a number: `one` for 1, else `several`; default: `one` with an s."""
    return one if number == 1 else several or f"{one}s"


def many(number: int, one: str, several: str | None = None) -> str:
    """A number with its noun: "1 photo", "1,200 photos"; arguments as for `noun`."""
    return f"{number:,} {noun(number, one, several)}"


def some_of(names: Sequence[str], most: int, total: int | None = None) -> str:
    """The first `most` names in quotes, with an ellipsis if there are more; `total`: number of all, if not `names`."""
    shown = ", ".join(f"'{visible(name)}'" for name in names[:most])
    return shown + (", …" if (len(names) if total is None else total) > most else "")


def is_text(text: str) -> bool:
    """Whether the text is valid Unicode. Python represents file names that are not UTF-8 with lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shortened(text: str, length: int) -> str:
    """The first `length` characters of a text; if it is longer, with its number of characters."""
    if len(text) <= length:
        return text
    return f"{text[:length]}… ({len(text):,} characters)"
