"""Conversion of times to UTC."""

from __future__ import annotations

from datetime import UTC, datetime

_MIN_TIME, _MAX_TIME = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def to_utc(time: datetime) -> datetime:
    """Convert an aware time to UTC. A time that `datetime` cannot represent in UTC becomes its minimum or maximum.

    For example, the first midnight of the year 1, east of Greenwich, is before that year in UTC.
    """
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return _MIN_TIME if time.year == 1 else _MAX_TIME
