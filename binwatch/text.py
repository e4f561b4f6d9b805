"""Formats texts for messages, and makes external texts, such as keys and file names, safe to print."""

from __future__ import annotations

from collections.abc import Sequence


def escape_unprintable(text: str) -> str:
    """Escape line breaks, control codes, direction marks and invalid Unicode, as in "a\\nb".

    The result cannot control a terminal or start a new line, and can always be encoded.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def pluralize(count: int, singular: str, plural: str | None = None) -> str:
    """Return `singular` for a count of 1, else `plural`, which is `singular` with an s by default."""
    return singular if count == 1 else plural or f"{singular}s"


def count_noun(count: int, singular: str, plural: str | None = None) -> str:
    """Return a count with its noun, as in "1 photo" and "1,200 photos"; arguments as for `pluralize`."""
    return f"{count:,} {pluralize(count, singular, plural)}"


def preview_names(names: Sequence[str], limit: int, total: int | None = None) -> str:
    """Return the first `limit` names in quotes, with an ellipsis if there are more.

    `total`: number of names, if `names` has only some of them.
    """
    preview = ", ".join(f"'{escape_unprintable(name)}'" for name in names[:limit])
    return preview + (", …" if (len(names) if total is None else total) > limit else "")


def is_valid_unicode(text: str) -> bool:
    """Return whether the text is valid Unicode. In Python, file names that are not UTF-8 have lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def truncate(text: str, length: int) -> str:
    """Cut a text to `length` characters; a text that is cut is followed by its full number of characters."""
    if len(text) <= length:
        return text
    return f"{text[:length]}… ({len(text):,} characters)"
