"""The workflow of a variance in the browser: one person's audit, another's recount, and the approval."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.monitor.browser.conftest import TOKEN
from tests.monitor.browser.surfing import window
from tests.monitor.browser.warehouse import MISTAKES
from tests.monitor.conftest import Running

APPROVERS = "another secret of the tests"
BIN, FOUND = "113968", "61"
"""A number that no page contains otherwise."""


@pytest.fixture
def approvers(monkeypatch: pytest.MonkeyPatch) -> str:
    """Configure the approvers' token and return it."""
    monkeypatch.setenv("BINWATCH_MONITOR_APPROVER_TOKEN", APPROVERS)
    return APPROVERS


def _sign_in(page: Page, name: str, token: str = TOKEN) -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Which bins need a look?")


def _count(page: Page) -> None:
    """Enter the number by keyboard on the page of the bin."""
    expect(page.locator("h1")).to_have_text(f"Bin {BIN}")
    expect(page.locator("input:focus")).to_be_visible()
    page.keyboard.type(FOUND)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text(f"Saved: bin {BIN} holds {FOUND}; the inventory said 1")


@pytest.mark.parametrize(("width", "script"), [(1280, True), (375, True), (375, False)])
def test_variance_is_recounted_by_another_person_and_approved(
    approvers: str, counted: Running, chromium: Browser, width: int, script: bool
) -> None:
    assert MISTAKES[BIN] == 1
    url = str(counted.client.base_url)
    with window(chromium, url, width=width, script=script) as one:
        _sign_in(one.open("/login"), "Ann")
        one.page.get_by_role("link", name=f"Bin {BIN}").click()
        _count(one.page)
        page = one.open("/discrepancies")
        expect(page.get_by_role("link", name="Count them again")).to_have_count(0)
    with window(chromium, url, width=width, script=script) as one:
        page = one.open("/login")
        _sign_in(page, "Ben")
        assert one.faults() == []
        recount_link = page.get_by_role("link", name="Count them again one by one")
        recount_link.focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text(f"Bin {BIN}")
        shown = page.locator("main").inner_text()
        assert re.findall(r"expects|\bAnn\b|[Vv]ariance|found|\b61\b", shown) == []
        _count(page)
        expect(page.locator("h1")).to_have_text("Which bins need a look?")
        assert one.complaints == []
    with window(chromium, url, width=width, script=script) as one:
        page = one.open("/login")
        _sign_in(page, "Eve", approvers)
        page.get_by_role("button", name="Show the numbers").click()
        expect(page.get_by_role("link", name="1 to be approved")).to_be_visible()
        assert one.faults() == []
        page.get_by_role("link", name="1 to be approved").click()
        page.get_by_role("link", name=BIN).click()
        assert one.faults() == []
        page.get_by_role("button", name="Reject").click()
        expect(page.get_by_label("Why not")).to_be_focused()  # required
        page.get_by_role("region", name="Variance to be approved").get_by_label("Note").fill("as in the photo")
        page.keyboard.press("Enter")
        expect(page.get_by_role("region", name="Variance approved")).to_contain_text("Eve approved 61 as in the photo")
        assert one.faults() == []
        assert one.complaints == []
    (approved,) = counted.get("/api/lists/variances?state=approved").json()["items"]
    assert [approved[name] for name in ("bin_id", "expected", "quantity", "closed_by")] == [BIN, 1, 61, "Eve"]
