"""The accessibility checks detect faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.monitor.browser.surfing import Window, window

GOOD = """<!doctype html><html lang="en">
<head><meta name="color-scheme" content="light dark"><title>A page</title></head>
<body><a href="#main">Skip</a><main id="main"><h1>A page</h1>%s</main></body></html>"""


@pytest.fixture(scope="module")
def blank(chromium: Browser) -> Iterator[Window]:
    """Open an empty window."""
    with window(chromium, "http://127.0.0.1", width=375) as one:
        one.page.goto("about:blank")
        yield one


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ("", None),
        ("<h3>Too deep</h3>", "level 3 after 1"),
        ("<h1>Another</h1>", "2 first-level headings"),
        ("<img src='data:,' width=1 height=1>", "no alternative text"),
        ("<img src='data:,' alt=''>", "no size before it loads"),
        ("<input name=bin style='height: 30px'>", "no label (bin)"),
        ("<label>Bin <input name=bin style='height: 30px'></label>", None),
        ("<a href=/x></a>", "no name to be read out"),
        ("<a href=/x><img src='data:,' alt='' width=1 height=1></a>", "no name to be read out"),
        ("<button style='height: 20px; padding: 0'>x</button>", "too small to hit"),
        ("<table><tr><th scope=row>x</table>", "no caption"),
        ("<table><caption>x</caption><tr><th>x</table>", "no scope"),
        ("<nav><a href=/x>x</a></nav>", "no name"),
        ("<p id=main>", "id main twice"),
        ("<section aria-labelledby=nothing></section>", "which is not there"),
        ("<p style='color: #888; background: #fff'>pale</p>", "contrast 3.54"),
        ("<p style='width: 2000px; background: inherit'>wide</p>", "px sideways"),
    ],
)
def test_each_fault_is_detected(blank: Window, html: str, fault: str | None) -> None:
    blank.page.set_content(GOOD % html)
    faults = blank.faults()
    assert len(faults) == (fault is not None), faults
    assert all(str(fault) in each for each in faults)


def test_layout_shift_is_detected(blank: Window) -> None:
    blank.page.set_content("<div id=late></div><p style='height: 300px; background: red'>moves</p>")
    blank.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    blank.page.evaluate("() => { document.getElementById('late').style.height = '400px' }")
    assert blank.shift() > 0.1
