"""Axes with ticks at round times and shares, few enough to read on a phone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MAX_TICKS = 8
"""Maximum length of a time axis in steps between ticks. There is one tick more if both ends are round times. A phone
shows every other tick."""

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_STEPS = (
    *(minutes * timedelta(minutes=1) for minutes in (1, 5, 15, 30)),
    *(hours * _HOUR for hours in (1, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 7, 14, 28, 91, 182, 364)),
)
_ORIGIN = datetime(2001, 1, 1, tzinfo=UTC)
"""A Monday. Ticks are whole steps from here, so that they do not move with the time span of a chart."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled position on an axis."""

    position: float
    """Per cent of the width, or pixels from the top."""
    label: str


@dataclass(frozen=True, slots=True)
class Span:
    """The time span of a plot."""

    start: datetime
    end: datetime

    def position(self, time: datetime) -> float:
        """Return the position of a time, in per cent of the width."""
        return 100 * ((time - self.start) / (self.end - self.start))

    def ticks(self) -> list[Tick]:
        """Return ticks at round times in UTC. From end to end, the axis is at most MAX_TICKS steps long."""
        length = self.end - self.start
        step = next((step for step in _STEPS if length / step <= MAX_TICKS), length / MAX_TICKS)
        first, last = math.ceil((self.start - _ORIGIN) / step), math.floor((self.end - _ORIGIN) / step)
        times = [_ORIGIN + index * step for index in range(first, last + 1)]
        # At midnight, the label is the day that begins.
        return [
            Tick(self.position(time), f"{time:%H:%M}" if time.hour or time.minute else f"{time:%-d %b}")
            for time in times
        ]


def share_ticks(height: float) -> list[Tick]:
    """Return ticks from 0 to 100 % in quarters, from the bottom up. An axis that starts elsewhere exaggerates noise."""
    return [Tick(height * (1 - quarter / 4), f"{25 * quarter}\N{NARROW NO-BREAK SPACE}%") for quarter in range(5)]
