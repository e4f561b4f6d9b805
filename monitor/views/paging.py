"""Keyset paging: a page costs the same at the start of a list and far down in it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import RowMapping

from binwatch.errors import BinwatchError


class BadCursor(BinwatchError):
    """A cursor that this monitor did not make."""

    def __init__(self, cursor: str) -> None:
        super().__init__(f"{cursor[:80]!r} is not a cursor; use `next` or `previous` of an answer unchanged")


class RowPage(NamedTuple):
    """The rows of a page, and whether there are others beside them."""

    rows: Sequence[RowMapping]
    has_next: bool
    has_previous: bool


def part_of(rows: Sequence[RowMapping], limit: int, *, is_first: bool, backwards: bool) -> RowPage:
    """A page of at most `limit` rows. `rows` are those after a cursor, or before it and then in reverse, one more than
    the page holds if there are so many; `is_first`: there was no cursor.
    """
    more = len(rows) > limit
    kept = rows[:limit][::-1] if backwards else rows[:limit]
    return RowPage(kept, bool(kept), more) if backwards else RowPage(kept, more, not is_first and bool(kept))


def encode(place: str) -> str:
    """A cursor. It is opaque to its reader, so that the order may change without breaking anybody."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    """The place that a cursor was made of. Raises BadCursor."""
    try:
        return base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode()
    except (ValueError, binascii.Error) as error:
        raise BadCursor(cursor) from error
