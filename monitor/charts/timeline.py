"""Shares over time: lines with bands of confidence, broken where nothing is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise

from monitor.charts.axes import Span, Tick, share_ticks

HEIGHT = 200
"""Of the plot, in pixels."""


@dataclass(frozen=True, slots=True)
class Point:
    """A share at one moment, 0 to 1. None where nothing is known."""

    at: datetime
    value: float | None
    low: float | None = None
    high: float | None = None
    says: str = ""
    """The tooltip."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A point as it is drawn."""

    x: float
    y: float
    says: str


@dataclass(frozen=True, slots=True)
class SeriesLine:
    """One series as it is drawn. Paths are in per cent × pixels."""

    name: str
    """Its CSS class."""
    label: str
    lines: list[str]
    bands: list[str]
    whiskers: list[str]
    """Intervals of points that stand alone, where there is no band."""
    gaps: list[str]
    """Connections across times without a value, to be drawn fainter than a line."""
    dots: list[Dot]


@dataclass(frozen=True, slots=True)
class EventMark:
    """Something that happened at one moment, numbered since names would run into each other."""

    x: float
    number: int
    at: datetime
    says: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """A chart of shares over time."""

    height: int
    lines: list[SeriesLine]
    marks: list[EventMark]
    moments: list[Tick]
    shares: list[Tick]


def timeline(
    span: Span, series: Sequence[tuple[str, str, Sequence[Point]]], marks: Sequence[tuple[datetime, str]] = ()
) -> Timeline:
    """A chart of `series`: (CSS class, label, points in the order of time). Marks outside of the span are left out."""
    within = [(at, says) for at, says in marks if span.start <= at <= span.end]
    return Timeline(
        height=HEIGHT,
        lines=[_line(span, name, label, points) for name, label, points in series],
        marks=[EventMark(round(span.place(at), 2), number, at, says) for number, (at, says) in enumerate(within, 1)],
        moments=span.ticks(),
        shares=share_ticks(HEIGHT),
    )


def _line(span: Span, name: str, label: str, points: Sequence[Point]) -> SeriesLine:
    # Without gaps: a band across days without photos would claim what nobody saw.
    stretches = [list(run) for known, run in groupby(points, lambda point: point.value is not None) if known]
    bounds = [[_interval(span, point) for point in stretch] for stretch in stretches]
    return SeriesLine(
        name=name,
        label=label,
        lines=[_path([(_x(span, point), _y(point.value)) for point in stretch]) for stretch in stretches],
        bands=[_path([high for _, high in one] + [low for low, _ in reversed(one)]) + "Z" for one in bounds if one[1:]],
        whiskers=[_path(one[0]) for one in bounds if len(one) == 1],
        gaps=[
            _path([(_x(span, one[-1]), _y(one[-1].value)), (_x(span, other[0]), _y(other[0].value))])
            for one, other in pairwise(stretches)
        ],
        dots=[Dot(_x(span, point), _y(point.value), point.says) for stretch in stretches for point in stretch],
    )


def _interval(span: Span, point: Point) -> tuple[tuple[float, float], tuple[float, float]]:
    """Both ends, the lower first; both on the point itself if it has no interval."""
    x = _x(span, point)
    return (x, _y(point.value if point.low is None else point.low)), (
        x,
        _y(point.value if point.high is None else point.high),
    )


def _x(span: Span, point: Point) -> float:
    return round(span.place(point.at), 2)


def _y(share: float | None) -> float:
    return round(HEIGHT * (1 - min(max(share or 0.0, 0.0), 1.0)), 1)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
