"""The workflow of an auditor in the browser, from signing in to an audited bin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.monitor.browser.conftest import TOKEN
from tests.monitor.browser.surfing import Window, window
from tests.monitor.browser.warehouse import MISTAKES, contents
from tests.monitor.conftest import Running

WORST, TRUTH = "113968", "7"
"""A bin with a wrong inventory; its photo shows more than 5 items."""


@pytest.fixture
def reader(counted: Running, chromium: Browser) -> Iterator[Window]:
    """Open a window without signing in."""
    with window(chromium, str(counted.client.base_url)) as one:
        yield one


def _press(page: Page, key: str) -> None:
    """Press a key once the page and its script are loaded."""
    page.wait_for_load_state("load")
    page.keyboard.press(key)


def _type(page: Page, text: str) -> None:
    """Type into the focused field, once a field has the focus."""
    expect(page.locator("input:focus")).to_be_visible()
    page.keyboard.type(text)


def _sign_in(page: Page, name: str = "Ann") -> None:
    _type(page, name)
    page.keyboard.press("Tab")
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")


def _tile(page: Page, name: str) -> str:
    return page.locator(".tile", has_text=name).inner_text()


@pytest.mark.parametrize("width", [1280, 375])
def test_the_worst_bin_can_be_audited_blind_by_keyboard_only(counted: Running, chromium: Browser, width: int) -> None:
    assert WORST in MISTAKES
    with window(chromium, str(counted.client.base_url), width=width) as one:
        page = one.open("/login")
        _sign_in(page)
        expect(page.locator("h1")).to_have_text("Which bins need a look?")
        _has_no_numbers(page)
        _press(page, "j")
        expect(page.locator(":focus")).to_have_text(f"Bin {WORST}")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text(f"Bin {WORST}")
        _has_no_numbers(page)
        _type(page, TRUTH)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text(f"Saved: bin {WORST} holds {TRUTH}")
        expect(page.get_by_role("status")).to_contain_text("the inventory said 1, the model more than 5")
        expect(page.locator("h1")).to_have_text("Bin 125")  # the second worst bin
        assert one.complaints == []
        assert one.strangers() == []
        one.open("/")
        assert "100\u202f%" in _tile(page, "Accuracy by audit")
        assert "1 of 1 counts right" in _tile(page, "Accuracy by audit")
    audits = counted.get("/api/audits").json()["items"]
    assert [(audit["bin"], audit["quantity"], audit["auditor"], audit["blind"]) for audit in audits] == [
        (WORST, 7, "Ann", True)
    ]
    scraped = counted.metrics()["binwatch_audited_counts"]
    assert {dict(labels)["outcome"]: audits for labels, audits in scraped.items() if audits} == {"exact": 1}


def _has_no_numbers(page: Page) -> None:
    """Check that the page has no count, no expected quantity and no outcome colour."""
    number_pattern = (
        r"(?:expects?|expected|counts?|counted) (?:<b>)?\d|more than|fewer|flagged|\b(?:under|over|exact)\b"
    )
    assert re.findall(number_pattern, _main(page)) == []


def _main(page: Page) -> str:
    return re.sub(r"\s+", " ", page.locator("main").inner_html())


def test_shortcuts_navigate_the_flagged_bins(reader: Window, counted: Running) -> None:
    page = reader.open("/login?next=/audit?flagged=true")
    _sign_in(page)
    heading = page.locator("h1")
    expect(heading).to_have_text(f"Bin {WORST}")
    expect(page.locator(":focus")).to_have_attribute("name", "quantity")
    for key, bin_id in (("n", "125"), ("j", "06544"), ("k", "125"), ("p", WORST)):
        _press(page, key)
        expect(heading).to_have_text(f"Bin {bin_id}")
    _press(page, "Shift+Tab")  # move the focus away: digits still go to the field
    page.keyboard.type("12")
    expect(page.get_by_label("Items")).to_have_value("12")
    page.keyboard.press("c")
    expect(page.get_by_label("Items")).to_have_value("")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text(
        f"bin {WORST} – cannot be told from the photo. Count it, and both"
    )
    expect(heading).to_have_text("Bin 125")
    _press(page, "a")
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Saved: bin 125 holds at least 3; the inventory said 4")
    answers = [(one["bin"], one["answer"], one["blind"]) for one in counted.get("/api/audits").json()["items"]]
    assert answers == [("125", "at_least", True), (WORST, "cannot_tell", True)]


def test_forms_and_links_work_without_scripts(counted: Running, chromium: Browser) -> None:
    with window(chromium, str(counted.client.base_url), script=False) as one:
        page = one.open(f"/bin?id={WORST}")
        page.get_by_role("main").get_by_role("link", name="Sign in").click()
        page.get_by_label("Your name").fill("Bo")
        page.get_by_label("Token").fill("wrong-wrong-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("That is not the token")
        expect(page.get_by_label("Your name")).to_have_value("Bo")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("main").get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="Bin 125", exact=True).click()
        _type(page, "4")
        page.get_by_label("at least").check()
        page.get_by_text("Why, or a note").click()
        page.get_by_label("Reason").select_option("hidden behind others")
        page.get_by_label("Note").fill("a box in front")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Saved: bin 125 holds at least 4")
        page.get_by_role("link", name="Correct it").click()
        expect(page.locator(".audit")).to_contain_text("Bo: at least 4 found")
        expect(page.get_by_role("row", name="Bo")).to_contain_text("(hidden behind others) a box in front")
        page.get_by_label("Items").fill("8")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Saved: bin 125 holds 8")
        one.open(f"/bin?id={WORST}")
        expect(page.locator(".audit")).to_contain_text("The numbers of this bin were shown here")
        page.get_by_role("button", name="Show the numbers").click()
        expect(page.locator("h1")).to_have_text(f"Bin {WORST}")
        one.open("/discrepancies")
        expect(page.locator("h1")).to_have_text("Which bins look wrong?")
        page.get_by_role("button", name="Hide the numbers").click()
        expect(page.locator("h1")).to_have_text("Which bins need a look?")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("banner")).to_contain_text("Sign in")
        assert one.asked
        assert one.strangers() == []
    found = [(audit["quantity"], audit["blind"]) for audit in counted.get("/api/audits").json()["items"]]
    assert found == [(8, False), (4, True)], "both are kept"


def test_flagged_bins_come_before_the_others(reader: Window, counted: Running) -> None:
    flagged = counted.get("/api/level").json()["flagged"]
    page = reader.open("/login?next=/audit")
    _sign_in(page)
    for left in reversed(range(flagged)):
        _save_and_next(page, "6")
        assert counted.get("/api/level").json()["unaudited"] == left
    expect(page.locator("h1")).to_have_text(re.compile(r"Bin \d+"))
    page = reader.open("/")
    expect(page.locator(".call")).to_contain_text("No flagged bin is left to look at")


def test_the_list_is_empty_after_the_last_bin_of_a_filter(reader: Window, counted: Running) -> None:
    page = reader.open(f"/login?next=/audit?prefix={WORST[:4]}")
    _sign_in(page)
    bins = [Path(key).stem for key in contents("bin-images") if Path(key).stem.startswith(WORST[:4])]
    for _ in bins:
        _save_and_next(page, "6")
    expect(page.locator("h1")).to_have_text("Which bins need a look?")
    expect(page.get_by_role("status")).to_contain_text("Saved: bin")
    expect(page.locator("main")).to_contain_text("No bin waits that passes this filter")
    assert sorted(one["bin"] for one in counted.get("/api/audits").json()["items"]) == sorted(bins)


def _save_and_next(page: Page, number: str) -> None:
    expect(page.locator(":focus")).to_have_attribute("name", "quantity")
    _type(page, number)
    with page.expect_navigation():
        page.keyboard.press("Enter")


def test_auditor_pages_are_accessible(counted: Running, chromium: Browser) -> None:
    with window(chromium, str(counted.client.base_url), width=375) as one:
        page = one.open("/login")
        _sign_in(page)
        expect(page.locator("h1")).to_have_text("Which bins need a look?")
        assert one.faults() == []
        one.open(f"/bin?id={WORST}")
        expect(page.locator("h1")).to_have_text(f"Bin {WORST}")
        page.get_by_text("Why, or a note").click()
        assert one.faults() == []
        assert one.shift() < 0.001
        page.get_by_label("Items").fill(TRUTH)
        page.get_by_role("button", name="Save and next").click()
        expect(page.get_by_role("status")).to_contain_text("Saved")
        assert one.faults() == []
        one.open(f"/bin?id={WORST}")
        expect(page.locator("#compared")).to_have_count(1)
        assert one.faults() == []


@pytest.mark.parametrize("width", [1280, 375])
def test_the_overview_opens_the_next_random_bin(counted: Running, chromium: Browser, width: int) -> None:
    with window(chromium, str(counted.client.base_url), width=width) as one:
        _sign_in(one.open("/login"))
        expect(one.page.locator("h1")).to_have_text("Which bins need a look?")
        page = one.open("/")
        assert one.faults() == []
        page.get_by_role("button", name="Next random bin").click()
        expect(page.locator("h1")).to_have_text(re.compile(r"Bin \d+"))
        _has_no_numbers(page)
        _type(page, "3")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Saved: bin")
        assert "random=1" in page.url, "the next one is random too"
        drawn = page.locator("h1").inner_text()
        _press(page, "j")
        expect(page.locator("h1")).not_to_have_text(drawn)
        assert "random=1" in page.url, "so is the one after a skipped bin"
        assert one.faults() == []
        assert one.complaints == []


def test_navigation_between_bins_keeps_the_filter(reader: Window) -> None:
    page = reader.open("/discrepancies")
    page.get_by_text("Filter and level").click()
    page.get_by_label("The bin holds").select_option("missing")
    page.get_by_label("Differs by").select_option("3 or more")
    page.get_by_label("Bin or key begins with").fill("1")
    page.get_by_role("button", name="Show", exact=True).click()
    rows = page.locator(".bins > li")
    texts = rows.all_inner_texts()
    assert texts
    assert all(text.startswith("Bin 1") and "fewer" in text for text in texts)
    rows.first.get_by_role("link").click()
    page.get_by_role("link", name="Next").click()
    expect(page.locator("h1")).to_have_text(texts[1].splitlines()[0])
    page.get_by_role("link", name="← Discrepancies").click()
    expect(rows).to_have_count(len(texts))
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    lines = download.value.path().read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [text.splitlines()[0].removeprefix("Bin ") for text in texts]


def test_any_bin_can_be_opened_by_name(reader: Window) -> None:
    page = reader.open("/discrepancies")
    page.get_by_label("Any bin").fill("126")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Bin 126")
    page = reader.open("/")
    page.locator(".photo a").first.click()
    expect(page.locator("h1")).to_have_text("Bin 126")  # the latest photo
