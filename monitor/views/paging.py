"""Keyset paging: the cost of a page does not depend on its position in the list."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import RowMapping

from binwatch.errors import BinwatchError


class BadCursor(BinwatchError):
    """A cursor is invalid."""

    def __init__(self, cursor: str) -> None:
        super().__init__(f"{cursor[:80]!r} is not a cursor; use `next` or `previous` of an answer unchanged")


class RowPage(NamedTuple):
    """Rows of a page, and whether there are pages before and after it."""

    rows: Sequence[RowMapping]
    has_next: bool
    has_previous: bool


def make_page(rows: Sequence[RowMapping], limit: int, *, is_first: bool, backwards: bool) -> RowPage:
    """Return a page of at most `limit` rows.

    `rows` are up to `limit + 1` rows after the cursor or, if `backwards`, before the cursor in reverse order.
    `is_first` means that there was no cursor.
    """
    has_more = len(rows) > limit
    page_rows = rows[:limit][::-1] if backwards else rows[:limit]
    if backwards:
        return RowPage(page_rows, has_next=bool(page_rows), has_previous=has_more)
    return RowPage(page_rows, has_next=has_more, has_previous=not is_first and bool(page_rows))


def encode(position: str) -> str:
    """Return the cursor of a position. Cursors are opaque, so that the order of a list can change without notice."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    """Return the position of a cursor. Raises BadCursor."""
    try:
        return base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode()
    except (ValueError, binascii.Error) as error:
        raise BadCursor(cursor) from error
