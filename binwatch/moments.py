"""Moments in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC, as near as the calendar of `datetime` has it. `moment` has a time zone.

    Midnight of the first of January in the year 1, east of Greenwich, is in UTC a day of no year that there is.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return _FIRST if moment.year == 1 else _LAST
