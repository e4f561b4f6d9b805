"""Ticks: round moments and round shares, few enough to be read on a phone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

TICKS = 8
"""Most ticks on an axis of time; a phone shows every other one."""

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_STEPS = (
    *(minutes * timedelta(minutes=1) for minutes in (1, 5, 15, 30)),
    *(hours * _HOUR for hours in (1, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 7, 14, 28, 91, 182, 364)),
)
_MONDAY = datetime(2001, 1, 1, tzinfo=UTC)
"""Ticks are whole steps from here, so that they do not move with the time that a chart shows."""


@dataclass(frozen=True, slots=True)
class Tick:
    """One place on an axis and what stands there."""

    at: float
    """Per cent of the width, or pixels from the top."""
    label: str


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time that is as wide as the plot."""

    start: datetime
    end: datetime

    def place(self, at: datetime) -> float:
        """Where a moment is, in per cent of the width."""
        return 100 * ((at - self.start) / (self.end - self.start))

    def ticks(self) -> list[Tick]:
        """Round moments in UTC, at most TICKS of them."""
        length = self.end - self.start
        step = next((step for step in _STEPS if length / step <= TICKS), length / TICKS)
        first, last = math.ceil((self.start - _MONDAY) / step), math.floor((self.end - _MONDAY) / step)
        moments = [_MONDAY + number * step for number in range(first, last + 1)]
        # At midnight, the day that begins.
        return [Tick(self.place(at), f"{at:%H:%M}" if at.hour or at.minute else f"{at:%-d %b}") for at in moments]


def share_ticks(height: float) -> list[Tick]:
    """0 to 100 % in quarters, from the bottom up: an axis that starts elsewhere makes noise look like news."""
    return [Tick(height * (1 - quarter / 4), f"{25 * quarter}\N{NARROW NO-BREAK SPACE}%") for quarter in range(5)]
