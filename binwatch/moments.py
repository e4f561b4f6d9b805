"""Times in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def in_utc(moment: datetime) -> datetime:
    """A time with a time zone in UTC, or `datetime`'s first or last time if UTC is outside of its range.

    For example, the first midnight of the year 1, east of Greenwich, is in UTC before that year.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return _FIRST if moment.year == 1 else _LAST
