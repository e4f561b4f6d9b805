"""Text that others wrote, such as keys and file names, made fit to be shown."""

from __future__ import annotations

from collections.abc import Sequence


def visible(text: str) -> str:
    """Line breaks, a terminal's control codes, marks of direction and what is no Unicode as escapes, as in "a\\nb".

    Nothing of it can move a cursor, begin a line, or fail to be encoded.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def noun(number: int, one: str, several: str | None = None) -> str:
    """The noun after a number: `one` for 1, else `several`, which ends with an s unless given."""
    return one if number == 1 else several or f"{one}s"


def many(number: int, one: str, several: str | None = None) -> str:
    """A number and its noun: "1 photo", "1,200 photos"; `several` as for `noun`."""
    return f"{number:,} {noun(number, one, several)}"


def some_of(names: Sequence[str], most: int, total: int | None = None) -> str:
    """The first `most` names in quotes, and an ellipsis if there are more: `total`, if `names` are not all."""
    shown = ", ".join(f"'{visible(name)}'" for name in names[:most])
    return shown + (", …" if (len(names) if total is None else total) > most else "")


def is_text(text: str) -> bool:
    """Whether it can be stored and sent. Not so the name of a file that is not UTF-8, whose bytes Python only marks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shortened(text: str, length: int) -> str:
    """At most `length` characters of a text, and how many there were."""
    if len(text) <= length:
        return text
    return f"{text[:length]}… ({len(text):,} characters)"
