"""Charts that compare two distributions: the reference on which the model was measured, and a recent window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monitor.charts.axes import Tick

HEIGHT = 110
"""Height of the plot in pixels."""
_MARGIN = 0.14
"""Empty share of a category's width on either side."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle with a tooltip."""

    x: float
    width: float
    y: float
    height: float
    tooltip: str = ""


@dataclass(frozen=True, slots=True)
class PairedColumns:
    """Shares by category, as two columns each."""

    reference: list[Bar]
    window: list[Bar]
    labels: list[Tick]
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class Steps:
    """Shares by interval of a continuous value: SVG paths, an area for the reference and a line for the window."""

    reference: str
    window: str
    labels: list[Tick]
    height: int = HEIGHT


def columns(reference: Sequence[float], window: Sequence[float], labels: Sequence[str]) -> PairedColumns:
    """Draw two lists of values by category, each as shares of its sum."""
    reference_shares, window_shares = _shares(reference), _shares(window)
    top = max(*reference_shares, *window_shares, 1e-9)
    width = 100 / len(labels)
    bar_width = width * (1 - 2 * _MARGIN) / 2

    def bars(shares: Sequence[float], offset: float, source: str) -> list[Bar]:
        return [
            Bar(
                x=round(index * width + width * _MARGIN + offset, 3),
                width=round(bar_width, 3),
                y=round(HEIGHT * (1 - share / top), 1),
                height=round(HEIGHT * share / top, 1),
                tooltip=f"{labels[index]}: {share:.1%} {source}",
            )
            for index, share in enumerate(shares)
        ]

    return PairedColumns(
        bars(reference_shares, 0.0, "in the reference"),
        bars(window_shares, bar_width, "now"),
        [Tick(round((index + 0.5) * width, 2), label) for index, label in enumerate(labels)],
    )


def steps(reference: Sequence[float], window: Sequence[float], low: str, high: str) -> Steps:
    """Draw two histograms with equal intervals, each as shares of its sum. `low` and `high` label the axis's ends."""
    reference_shares, window_shares = _shares(reference), _shares(window)
    top = max(*reference_shares, *window_shares, 1e-9)
    return Steps(_outline(reference_shares, top) + "Z", _outline(window_shares, top), [Tick(0, low), Tick(100, high)])


def _shares(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total if total else 0.0 for value in values]


def _outline(shares: Sequence[float], top: float) -> str:
    width = 100 / len(shares)
    commands = [f"M0 {HEIGHT}"]
    for index, share in enumerate(shares):
        y = round(HEIGHT * (1 - share / top), 1)
        commands.append(f"L{index * width:.4g} {y:g}L{(index + 1) * width:.4g} {y:g}")
    return "".join(commands) + f"L100 {HEIGHT}"


@dataclass(frozen=True, slots=True)
class Shifts:
    """Shifts along several axes, as columns up or down from a line in the middle."""

    window: list[Bar]
    middle: float = HEIGHT / 2
    height: int = HEIGHT


def shifts(values: Sequence[float], full_scale: float = 1.0) -> Shifts:
    """Draw the shifts along each axis. Half the height stands for `full_scale`, or for a larger shift."""
    top = max(full_scale, *(abs(value) for value in values))
    width = 100 / len(values)
    bars = []
    for index, value in enumerate(values):
        height = round(HEIGHT / 2 * abs(value) / top, 1)
        y = HEIGHT / 2 - (height if value > 0 else 0)
        bars.append(
            Bar(
                x=round(width * (index + _MARGIN), 3),
                width=round(width * (1 - 2 * _MARGIN), 3),
                y=round(y, 1),
                height=height,
                tooltip=f"axis {index + 1}: {value:+.2f} standard deviations",
            )
        )
    return Shifts(bars)
