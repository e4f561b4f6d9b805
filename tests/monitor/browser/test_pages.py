"""Every page in a real browser: light and dark, desktop and phone, with and without scripts."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from binwatch.records.audits import add_audit
from binwatch.records.repeats import add_known_answers
from tests.monitor.browser.conftest import TOKEN
from tests.monitor.browser.surfing import window
from tests.monitor.conftest import Recorder, Running, running_monitor
from tests.monitor.drifting import BUCKET

PAGES = [
    "/",
    "/discrepancies",
    "/discrepancies?prefix=nowhere&direction=missing",
    "/bin?id=00184",
    "/models",
    "/slices",
    "/drift",
    "/login",
    "/login?problem=token",
    "/expected",
    "/lists/failed",
    "/lists/without-quantity",
    "/lists/without-photo?prefix=nowhere",
    "/lists/variances",
    "/nowhere",
    "/bin?id=nobody",
]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_pages_are_accessible(counted: Running, chromium: Browser, dark: bool, width: int) -> None:
    with window(chromium, str(counted.client.base_url), width=width, dark=dark) as one:
        for path in PAGES:
            one.open(path)
            assert dark or one.shift() < 0.001, path
            one.page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true })")
            assert (path, one.faults()) == (path, [])
        assert one.strangers() == []
        assert [said for said in one.complaints if "404 (Not Found)" not in said] == []


_RING = """
() => {
  const one = document.activeElement;
  const outlines = [getComputedStyle(one), getComputedStyle(one, "::after")];
  return outlines.some((style) => style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2);
}
"""


def test_the_focus_is_always_visible(counted: Running, chromium: Browser) -> None:
    with window(chromium, str(counted.client.base_url)) as one:
        for path in ("/", "/discrepancies", "/bin?id=00184", "/drift", "/login"):
            page = one.open(path)
            page.evaluate("() => document.activeElement.blur()")
            for _ in range(20):
                page.keyboard.press("Tab")
                if page.evaluate("() => document.activeElement === document.body"):
                    break  # once through the page
                name = page.evaluate("() => document.activeElement.outerHTML.slice(0, 80)")
                assert page.evaluate(_RING), f"{path}: {name}"


def test_the_first_link_skips_to_the_content(counted: Running, chromium: Browser) -> None:
    with window(chromium, str(counted.client.base_url)) as one:
        page = one.open("/discrepancies")
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Skip to the content")
        assert page.locator(":focus").bounding_box()["width"] > 100, "it can be seen now"  # type: ignore[index]
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.locator("main :focus")).to_have_count(1)


@pytest.mark.parametrize("width", [375, 1280])
def test_the_approvers_page_is_accessible(
    recorder: Recorder, chromium: Browser, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    recorder.pair("a", 3, 4)
    add_known_answers(recorder.engine, BUCKET, {"a": 3}, "known.csv")
    add_audit(recorder.engine, BUCKET, "a", 4, "Ada", blind=True)
    monkeypatch.setenv("BINWATCH_DATABASE_URL", recorder.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_MONITOR_APPROVER_TOKEN", TOKEN)
    with running_monitor() as running, window(chromium, str(running.client.base_url), width=width) as one:
        page = one.open("/login?next=/auditors")
        page.get_by_label("Your name").fill("Eve")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Are the auditors right?")
        expect(page.locator("tbody tr")).to_contain_text("Ada")
        assert one.faults() == []
        assert one.complaints == []
