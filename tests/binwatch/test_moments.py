"""Conversion of times to UTC; times outside the calendar become the nearest representable ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from binwatch.moments import to_utc


@pytest.mark.parametrize(
    ("text", "in_words"),
    [
        ("2026-11-20T01:00:00+02:00", "2026-11-19T23:00:00+00:00"),
        ("0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00+00:00"),
        ("0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_conversion_to_utc(text: str, in_words: str) -> None:
    assert to_utc(datetime.fromisoformat(text)).isoformat() == in_words


def test_any_offset_is_converted() -> None:
    for offset in (timedelta(hours=23, minutes=59), timedelta(hours=-23, minutes=-59)):
        for year in (datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)):  # noqa: DTZ001 (the next line adds it)
            assert to_utc(year.replace(tzinfo=timezone(offset))).tzinfo is UTC
