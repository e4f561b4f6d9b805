"""A browser window that records faults of a page: requests to other hosts, layout shifts and policy violations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page

CHECKS = (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")
_NOTE_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts.push(entry.value);
}).observe({ type: "layout-shift", buffered: true });
"""
_ALL_PHOTOS_ARE_THERE = """
() => [...document.images].every((image) => {
  image.loading = "eager";
  return image.complete && image.naturalWidth > 0;
})
"""
_SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@dataclass
class Window:
    """A browser window and the recorded faults."""

    page: Page
    address: str
    asked: list[str] = field(default_factory=list)
    """URLs of all requests."""
    complaints: list[str] = field(default_factory=list)
    """Errors that the browser logged: a policy that was broken, a file that is not there."""

    def open(self, path: str) -> Page:
        """Open a page of the monitor and wait until its photos are loaded."""
        self.page.goto(self.address + path)
        return self.page

    def faults(self) -> list[str]:
        """Return accessibility faults for screen readers, keyboards and phones."""
        self.page.wait_for_load_state("load")  # with its styles, which determine sizes
        result: list[str] = self.page.evaluate(CHECKS)
        return result

    def shift(self) -> float:
        """Return the layout shift (CLS) from the first paint until all photos are loaded."""
        self.page.wait_for_function(_ALL_PHOTOS_ARE_THERE)
        self.page.evaluate(_SETTLED)
        moved: float = self.page.evaluate("() => window.shifts.reduce((sum, each) => sum + each, 0)")
        return moved

    def strangers(self) -> list[str]:
        """Return the requests to other hosts."""
        own = urlsplit(self.address).netloc
        return [url for url in self.asked if urlsplit(url).netloc != own]


@contextmanager
def window(
    browser: Browser, address: str, *, width: int = 1280, height: int = 900, dark: bool = False, script: bool = True
) -> Iterator[Window]:
    """Open a window with a new profile until the block ends."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        locale="en-GB",
        timezone_id="America/New_York",  # no dialogs are expected
    )
    context.set_default_timeout(10_000)
    if script:
        context.add_init_script(_NOTE_SHIFTS)
    page = context.new_page()
    one = Window(page, address.rstrip("/"))
    page.on("request", lambda request: one.asked.append(request.url))
    page.on("console", lambda message: one.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: one.complaints.append(str(error)))
    try:
        yield one
    finally:
        context.close()
