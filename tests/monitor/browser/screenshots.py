"""Takes the screenshots of README.md and docs/monitoring.md: `make screenshots` writes them to docs/images/.

It is not collected with the tests but uses their fixtures.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser

from binwatch.settings import process_environment
from testing.services.s3 import S3
from tests.monitor.browser.conftest import TOKEN
from tests.monitor.browser.surfing import Window, window
from tests.monitor.browser.week import count_week
from tests.monitor.conftest import Running, running_monitor

IMAGES = Path(__file__).parents[3] / "docs" / "images"
MOST_BYTES = 250_000
COLOURS = 256


@pytest.fixture
def week(tmp_path: Path, _migrated_file: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor after a week of photos."""
    warehouse = count_week(s3, shutil.copy(_migrated_file, tmp_path / "records.db"), tmp_path)
    for name, value in process_environment(warehouse.settings.model_copy(update={"monitor_token": TOKEN})).items():
        if name.startswith("BINWATCH_"):
            monkeypatch.setenv(name, value)
    with running_monitor() as running:
        running.services.drift.update()
        yield running


def test_screenshots(week: Running, chromium: Browser) -> None:
    address = str(week.client.base_url)
    with window(chromium, address, width=1200, height=1000) as one:
        _audit(one, {"113968": 7, "125": 0, "113871": 7, "04611": 5})
        one.page.get_by_role("button", name="Sign out").click()
        _shoot(one, "/", "overview")
        _shoot(one, "/discrepancies", "discrepancies", height=900)
        worst = one.page.locator(".bins h3 a").first.get_attribute("href") or ""
        _shoot(one, worst, "bin", height=900)
    with window(chromium, address, width=1200, dark=True) as one:
        _shoot(one, "/drift", "drift-dark", height=1000)
    with window(chromium, address, width=375, dark=True) as one:
        _sign_in(one)
        _shoot(one, "/audit?flagged=true", "phone-dark", height=812)


def _sign_in(one: Window) -> None:
    page = one.open("/login")
    page.get_by_label("Your name").fill("Ann")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/discrepancies")


def _audit(one: Window, found: dict[str, int]) -> None:
    """Sign in and audit some bins."""
    _sign_in(one)
    page = one.page
    for bin_id, quantity in found.items():
        one.open(f"/bin?id={bin_id}")
        page.get_by_label("Items").fill(str(quantity))
        page.get_by_role("button", name="Save and next").click()
        page.get_by_role("status").wait_for()


def _shoot(one: Window, path: str, name: str, height: int = 1000) -> None:
    width = one.page.viewport_size["width"] if one.page.viewport_size else 1200
    one.page.set_viewport_size({"width": width, "height": height})
    one.open(path)
    one.shift()  # wait for the photos
    assert one.faults() == [], f"{path} is not suitable as a screenshot"
    _write(one.page.screenshot(), IMAGES / f"{name}.png")


def _write(png: bytes, path: Path) -> None:
    """Write the picture with a palette; with true colours it would have a megabyte."""
    path.parent.mkdir(exist_ok=True)
    small: Any = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    assert path.stat().st_size <= MOST_BYTES, f"{path} has {path.stat().st_size:,} bytes"
