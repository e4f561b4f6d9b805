"""Two distributions side by side: what the model was measured on, and what it sees now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monitor.charts.axes import Tick

HEIGHT = 110
"""Of the plot, in pixels."""
_GAP = 0.14
"""Share of a category's width that stays empty on either side."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A column from the bottom up."""

    x: float
    width: float
    y: float
    height: float
    says: str = ""


@dataclass(frozen=True, slots=True)
class PairedColumns:
    """Shares by category, two columns for each."""

    reference: list[Bar]
    window: list[Bar]
    labels: list[Tick]
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class Steps:
    """Shares by stretches of a continuous value: the reference as an area, the window as a line."""

    reference: str
    window: str
    labels: list[Tick]
    height: int = HEIGHT


def columns(reference: Sequence[float], window: Sequence[float], labels: Sequence[str]) -> PairedColumns:
    """Shapes (categories,), any scale: both are drawn as shares of their own sum."""
    ours, theirs = _shares(window), _shares(reference)
    top = max(*ours, *theirs, 1e-9)
    wide = 100 / len(labels)
    half = wide * (1 - 2 * _GAP) / 2

    def bars(shares: Sequence[float], offset: float, who: str) -> list[Bar]:
        return [
            Bar(
                x=round(index * wide + wide * _GAP + offset, 3),
                width=round(half, 3),
                y=round(HEIGHT * (1 - share / top), 1),
                height=round(HEIGHT * share / top, 1),
                says=f"{labels[index]}: {share:.1%} {who}",
            )
            for index, share in enumerate(shares)
        ]

    return PairedColumns(
        bars(theirs, 0.0, "in the reference"),
        bars(ours, half, "now"),
        [Tick(round((index + 0.5) * wide, 2), label) for index, label in enumerate(labels)],
    )


def steps(reference: Sequence[float], window: Sequence[float], low: str, high: str) -> Steps:
    """Shares of n stretches of equal width; `low` and `high` name the ends of the axis."""
    ours, theirs = _shares(window), _shares(reference)
    top = max(*ours, *theirs, 1e-9)
    return Steps(_outline(theirs, top) + "Z", _outline(ours, top), [Tick(0, low), Tick(100, high)])


def _shares(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total if total else 0.0 for value in values]


def _outline(shares: Sequence[float], top: float) -> str:
    wide = 100 / len(shares)
    places = [f"M0 {HEIGHT}"]
    for index, share in enumerate(shares):
        y = round(HEIGHT * (1 - share / top), 1)
        places.append(f"L{index * wide:.4g} {y:g}L{(index + 1) * wide:.4g} {y:g}")
    return "".join(places) + f"L100 {HEIGHT}"


@dataclass(frozen=True, slots=True)
class Shifts:
    """Columns up and down from a line in the middle: how far something moved along each of several axes."""

    window: list[Bar]
    middle: float = HEIGHT / 2
    height: int = HEIGHT


def shifts(values: Sequence[float], full: float = 1.0) -> Shifts:
    """Shape (axes,). `full` fills the height, unless a value is larger."""
    top = max(full, *(abs(value) for value in values))
    wide = 100 / len(values)
    bars = []
    for index, value in enumerate(values):
        height = round(HEIGHT / 2 * abs(value) / top, 1)
        y = HEIGHT / 2 - (height if value > 0 else 0)
        says = f"axis {index + 1}: {value:+.2f} standard deviations"
        bars.append(Bar(round(wide * (index + _GAP), 3), round(wide * (1 - 2 * _GAP), 3), round(y, 1), height, says))
    return Shifts(bars)
