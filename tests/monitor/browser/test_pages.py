"""Every page in a real browser: light and dark, on a phone, with and without script."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.monitor.browser.surfing import window
from tests.monitor.conftest import Running

PAGES = ["/"]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_pages_are_for_everybody(counted: Running, chromium: Browser, path: str, dark: bool, width: int) -> None:
    with window(chromium, str(counted.client.base_url), width=width, dark=dark) as one:
        one.open(path)
        assert one.faults() == []
        assert one.shift() < 0.001
        assert one.strangers() == []
        assert one.complaints == []
