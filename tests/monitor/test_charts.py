"""Charts: positions of values, gaps for missing data, ticks and scales."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.charts.axes import MAX_TICKS, Span
from monitor.charts.shapes import HEIGHT as SHAPE_HEIGHT
from monitor.charts.shapes import columns, steps
from monitor.charts.timeline import HEIGHT, Point, SeriesLine, timeline

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SPAN = Span(START, START + 10 * DAY)


def _line(*points: Point) -> SeriesLine:
    return timeline(SPAN, [("agreement", "Agreement", points)]).lines[0]


def test_points_are_placed_by_time_and_share() -> None:
    line = _line(Point(START, 0.0), Point(START + 5 * DAY, 0.25), Point(START + 10 * DAY, 1.0, tooltip="all of 8"))
    assert [(dot.x, dot.y) for dot in line.dots] == [(0, HEIGHT), (50, 0.75 * HEIGHT), (100, 0)]
    assert line.lines == [f"M0 {HEIGHT}L50 {0.75 * HEIGHT:g}L100 0"]
    assert line.dots[2].tooltip == "all of 8"


def test_a_day_without_photos_breaks_the_line() -> None:
    line = _line(*(Point(START + day * DAY, None if day == 2 else 0.5) for day in range(5)))
    assert line.lines == ["M0 100L10 100", "M30 100L40 100"]
    assert line.gaps == ["M10 100L30 100"]
    assert len(line.dots) == 4


def test_confidence_is_drawn_as_a_band_or_as_a_whisker_for_a_single_point() -> None:
    single_point = Point(START + 9 * DAY, 0.5, 0.25, 0.75)
    line = _line(
        Point(START, 0.5, 0.4, 0.6), Point(START + DAY, 0.5, 0.3, 0.7), Point(START + 2 * DAY, None), single_point
    )
    assert line.bands == ["M0 80L10 60L10 140L0 120Z"]
    assert line.whiskers == ["M90 150L90 50"]


def test_changes_are_numbered_in_order_and_earlier_ones_omitted() -> None:
    changes = [(START - DAY, "old"), (START + DAY, "model-1"), (START + 4 * DAY, "model-2")]
    marks = timeline(SPAN, [], changes).marks
    assert [(mark.number, mark.x, mark.label) for mark in marks] == [(1, 10, "model-1"), (2, 40, "model-2")]


def test_shares_are_drawn_from_0_to_100_per_cent() -> None:
    assert [(tick.position, tick.label[:-2]) for tick in timeline(SPAN, []).share_ticks] == [
        (HEIGHT, "0"),
        (0.75 * HEIGHT, "25"),
        (0.5 * HEIGHT, "50"),
        (0.25 * HEIGHT, "75"),
        (0, "100"),
    ]


@pytest.mark.parametrize(
    ("length", "labels"),
    [
        (timedelta(hours=6), ["1 Mar", "01:00", "02:00", "03:00", "04:00", "05:00", "06:00"]),
        (4 * DAY, ["1 Mar", "12:00", "2 Mar", "12:00", "3 Mar", "12:00", "4 Mar", "12:00", "5 Mar"]),
        (28 * DAY, ["2 Mar", "9 Mar", "16 Mar", "23 Mar"]),
    ],
)
def test_ticks_are_at_round_times(length: timedelta, labels: list[str]) -> None:
    assert [tick.label for tick in Span(START, START + length).ticks()] == labels


@given(minutes=st.integers(1, 20 * 365 * 24 * 60), offset=st.integers(0, 10**6))
def test_there_are_never_too_many_ticks(minutes: int, offset: int) -> None:
    start = START + timedelta(minutes=offset)
    ticks = Span(start, start + timedelta(minutes=minutes)).ticks()
    assert len(ticks) <= MAX_TICKS + 1
    assert all(0 <= tick.position <= 100 for tick in ticks)


def test_histogram_columns_are_normalised() -> None:
    chart = columns(reference=[300, 100], window=[1, 1], labels=["0", "1"])
    assert [bar.height for bar in chart.reference] == [SHAPE_HEIGHT, round(SHAPE_HEIGHT / 3, 1)]
    assert [bar.height for bar in chart.window] == [round(SHAPE_HEIGHT * 2 / 3, 1)] * 2
    assert chart.reference[1].tooltip == "1: 25.0% in the reference"
    assert all(
        reference.x + reference.width == pytest.approx(window.x)
        for reference, window in zip(chart.reference, chart.window, strict=True)
    )


def test_step_charts_share_one_scale() -> None:
    chart = steps(reference=[1, 3], window=[2, 0], low="0.1", high="0.9")
    assert chart.window == "M0 110L0 0L50 0L50 110L100 110L100 110"
    assert chart.reference == "M0 110L0 82.5L50 82.5L50 27.5L100 27.5L100 110Z"
    assert [(tick.position, tick.label) for tick in chart.labels] == [(0, "0.1"), (100, "0.9")]


def test_a_window_without_photos_is_flat() -> None:
    assert [bar.height for bar in columns([1, 1], [0, 0], ["0", "1"]).window] == [0, 0]
