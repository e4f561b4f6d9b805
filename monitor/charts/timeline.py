"""Charts of shares over time: lines with confidence bands, interrupted where there is no value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise

from monitor.charts.axes import Span, Tick, share_ticks

_Position = tuple[float, float]
HEIGHT = 200
"""Height of the plot in pixels."""


@dataclass(frozen=True, slots=True)
class Point:
    """A share, 0 to 1, at one time, with its confidence interval. None if unknown."""

    at: datetime
    value: float | None
    low: float | None = None
    high: float | None = None
    tooltip: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """A drawn point."""

    x: float
    y: float
    tooltip: str


@dataclass(frozen=True, slots=True)
class SeriesLine:
    """A drawn series. SVG paths have x in per cent of the width and y in pixels."""

    name: str
    """Its CSS class."""
    label: str
    lines: list[str]
    bands: list[str]
    whiskers: list[str]
    """Intervals of isolated points, which have no band."""
    gaps: list[str]
    """Connections across times without a value, drawn fainter than a line."""
    dots: list[Dot]


@dataclass(frozen=True, slots=True)
class EventMark:
    """An event at one time, marked with a number because labels would overlap."""

    x: float
    number: int
    at: datetime
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """A chart of shares over time."""

    height: int
    lines: list[SeriesLine]
    marks: list[EventMark]
    time_ticks: list[Tick]
    share_ticks: list[Tick]


def timeline(
    span: Span, series: Sequence[tuple[str, str, Sequence[Point]]], marks: Sequence[tuple[datetime, str]] = ()
) -> Timeline:
    """Draw `series`, (CSS class, label, points in order of time), and the `marks`, (time, label), within the span."""
    visible_marks = [(at, label) for at, label in marks if span.start <= at <= span.end]
    return Timeline(
        height=HEIGHT,
        lines=[_line(span, name, label, points) for name, label, points in series],
        marks=[
            EventMark(round(span.position(at), 2), number, at, label)
            for number, (at, label) in enumerate(visible_marks, 1)
        ],
        time_ticks=span.ticks(),
        share_ticks=share_ticks(HEIGHT),
    )


def _line(span: Span, name: str, label: str, points: Sequence[Point]) -> SeriesLine:
    # Lines and bands are interrupted at gaps: a band across days without photos would suggest that they are known.
    runs = [list(run) for has_value, run in groupby(points, lambda point: point.value is not None) if has_value]
    intervals = [[_interval(span, point) for point in run] for run in runs]
    return SeriesLine(
        name=name,
        label=label,
        lines=[_path([_position(span, point) for point in run]) for run in runs],
        bands=[_band(run) for run in intervals if len(run) > 1],
        whiskers=[_path(run[0]) for run in intervals if len(run) == 1],
        gaps=[_path([_position(span, run[-1]), _position(span, next_run[0])]) for run, next_run in pairwise(runs)],
        dots=[Dot(*_position(span, point), point.tooltip) for run in runs for point in run],
    )


def _band(intervals: Sequence[tuple[_Position, _Position]]) -> str:
    return _path([high for _, high in intervals] + [low for low, _ in reversed(intervals)]) + "Z"


def _interval(span: Span, point: Point) -> tuple[_Position, _Position]:
    """Return both ends of the interval, the lower first; without an interval, both are the point itself."""
    x, y = _position(span, point)
    return (x, y if point.low is None else _y(point.low)), (x, y if point.high is None else _y(point.high))


def _position(span: Span, point: Point) -> _Position:
    return round(span.position(point.at), 2), _y(point.value)


def _y(share: float | None) -> float:
    return round(HEIGHT * (1 - min(max(share or 0.0, 0.0), 1.0)), 1)


def _path(positions: Sequence[_Position]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in positions)
