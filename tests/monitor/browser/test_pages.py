"""Every page in a real browser: light and dark, on a phone, with and without script."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.monitor.browser.surfing import window
from tests.monitor.conftest import Running

PAGES = [
    "/",
    "/discrepancies",
    "/discrepancies?prefix=nowhere&direction=under",
    "/bin?id=00184",
    "/models",
    "/drift",
    "/login",
    "/login?problem=token",
    "/nowhere",
    "/bin?id=nobody",
]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_pages_are_for_everybody(counted: Running, chromium: Browser, dark: bool, width: int) -> None:
    with window(chromium, str(counted.client.base_url), width=width, dark=dark) as one:
        for path in PAGES:
            one.open(path)
            assert dark or one.shift() < 0.001, path
            one.page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true })")
            assert (path, one.faults()) == (path, [])
        assert one.strangers() == []
        assert [said for said in one.complaints if "404 (Not Found)" not in said] == []
