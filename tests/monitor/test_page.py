"""The overview page: figures, escaping, headers and behaviour without records."""

from __future__ import annotations

from pathlib import Path

import pytest

from binwatch.errors import MetadataReason, Reason
from monitor import formatting
from tests.monitor.conftest import Recorder, Running
from tests.monitor.drifting import BUCKET
from tests.monitor.html import Parsed


def test_the_table_shows_the_known_figures(known_records: Recorder, monitor: Running) -> None:
    rows = {row[0]: row[1:] for row in Parsed(monitor.page()).rows}
    assert rows["3"] == ["2", "1", "1", "0", "", "50\u202f%", "1.00"]
    assert rows["more than 5"] == ["2", "1", "1", "0", "", "50\u202f%", "0.50"]
    assert rows["0"] == ["0", "0", "0", "0", "", "–", "–"]
    assert rows["All"] == ["6", "2", "3", "1", "", "50\u202f%", "0.67"]


def test_each_photo_shows_its_count_and_the_expected_quantity(known_records: Recorder, monitor: Running) -> None:
    page = Parsed(monitor.page())
    assert "= agrees Count 2 Expected 2 Confidence 70\u202f%" in page.card("bin-images/a.jpg")
    assert "− 2 fewer Count 1 Expected 3" in page.card("bin-images/c.jpg")
    assert "+ 1 more Count 5 Expected 4" in page.card("bin-images/d.jpg")
    assert "− 35 fewer Count 5 Expected 40" in page.card("bin-images/f.jpg")
    assert "= agrees Count more than 5 Expected 12" in page.card("bin-images/e.jpg")
    assert "Expected quantity: not JSON Count 4 Expected –" in page.card("bin-images/g.jpg")
    assert "Not counted: file ends early the file ends early" in page.card("bin-images/h.jpg")
    assert [card.split()[-1] for card in page.cards[:2]] == ["bin-images/i.jpg", "bin-images/h.jpg"], "newest first"


def test_the_last_comparison_is_shown_after_a_correction(monitor: Running, recorder: Recorder) -> None:
    recorder.pair("a", predicted=2, expected=5)
    recorder.expect("a", 2)
    assert "= agrees Count 2 Expected 2" in Parsed(monitor.page()).card("a.jpg")
    recorder.expect("a", 5)
    assert "− 3 fewer Count 2 Expected 5" in Parsed(monitor.page()).card("a.jpg"), "as it was, and compared once"
    assert monitor.get("/api/summary").json()["agreement"]["total"]["comparisons"] == 2


def test_the_difference_of_an_open_ended_count_is_its_minimum(monitor: Running, recorder: Recorder) -> None:
    recorder.pair("a", predicted=6, expected=4)
    assert "+ at least 2 more Count more than 5 Expected 4" in Parsed(monitor.page()).card("a.jpg")
    assert "at least 2 more" in Parsed(monitor.page(f"/bin?bucket={BUCKET}&id=a")).text


def test_a_missing_expected_quantity_is_shown(monitor: Running, recorder: Recorder) -> None:
    recorder.count("alone.jpg", 3)
    assert "Nothing to compare with Count 3 Expected –" in Parsed(monitor.page()).card("alone.jpg")
    assert "nothing compared yet" in monitor.page()


def test_the_page_of_an_empty_database_names_the_next_step(monitor: Running) -> None:
    assert "Nothing has been counted yet" in monitor.page()


def test_hostile_text_is_escaped(monitor: Running, recorder: Recorder) -> None:
    hostile = """<script>alert(1)</script>"><img src=x onerror=alert(2)>'{{7*7}}"""
    recorder.count(f"{hostile}.jpg", 1, model=hostile)
    recorder.count(f"{hostile}-2.jpg", reason=Reason.CORRUPT, detail=hostile, model=hostile)
    html = monitor.page()
    page = Parsed(html)
    assert not page.tags("script")
    assert all((image["src"] or "").startswith(("/photos/", "/static/")) for image in page.tags("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "{{7*7}}" in page.card("-2.jpg")
    assert hostile not in html
    reflected = monitor.browse(f"/?model={hostile}-3").text
    assert not Parsed(reflected).tags("script")


def test_the_page_loads_nothing_from_other_hosts(known_records: Recorder, monitor: Running) -> None:
    page = Parsed(monitor.page())
    sources = [attributes.get(name) or "" for _, attributes in page.elements for name in ("src", "href")]
    assert all(source.startswith(("/", "#")) and not source.startswith("//") for source in sources if source)
    assert not any("style" in attributes for _, attributes in page.elements), "the policy refuses inline styles"


def test_the_page_is_accessible_and_has_no_layout_shift(known_records: Recorder, monitor: Running) -> None:
    page = Parsed(monitor.page())
    assert all(image.get("width") and image.get("height") and "alt" in image for image in page.tags("img"))
    assert all(cell.get("scope") for cell in page.tags("th"))
    assert len(page.tags("caption")) == len(page.tags("table")) == 2
    assert page.tags("html")[0]["lang"] == "en"
    names = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(names) == len(set(names))
    labels = [attributes.get("aria-labelledby") for _, attributes in page.elements]
    assert {label for label in labels if label} <= set(names)


def test_the_page_reports_an_outage_and_recovers(known_records: Recorder, monitor: Running, tmp_path: Path) -> None:
    database, moved_database = tmp_path / "records.db", tmp_path / "away.db"
    database.rename(moved_database)
    answer = monitor.browse("/")
    assert answer.status_code == 503
    assert "cannot be read" in answer.text
    assert str(tmp_path) not in answer.text
    summary = monitor.get("/api/summary")
    assert summary.status_code == 503
    assert str(tmp_path) not in summary.text
    moved_database.rename(database)
    assert "50\u202f%" in monitor.page()


def test_an_unknown_model_has_an_error_page(known_records: Recorder, monitor: Running) -> None:
    answer = monitor.browse("/?model=other")
    assert answer.status_code == 404
    assert "model-1" in answer.text


def test_models_can_be_chosen(known_records: Recorder, monitor: Running) -> None:
    known_records.count("bin-images/a.jpg", 1, model="model 2&x")
    links = [link["href"] for link in Parsed(monitor.page()).tags("a")]
    assert "/?model=model-1" in links
    assert "/?model=model+2%26x" in links
    current = [
        link["href"] for link in Parsed(monitor.page("/?model=model-1")).tags("a") if link.get("aria-current") == "true"
    ]
    assert [link for link in current if "span=" not in str(link)] == ["/?model=model-1"]


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/healthz", "/static/monitor.css", "/nowhere", "/photos/1", "/photos/x"]
)
def test_every_response_has_the_security_headers(monitor: Running, path: str) -> None:
    headers = monitor.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers


def test_every_reason_has_a_text() -> None:
    assert {*Reason, *MetadataReason} <= set(formatting.REASONS)


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/api/summary", "/static/monitor.css", "/nowhere"])
def test_head_equals_get_without_the_body(known_records: Recorder, monitor: Running, path: str) -> None:
    get, head = monitor.get(path), monitor.client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["x-content-type-options"] == "nosniff"
    assert monitor.client.head("/healthz").status_code == 200, "the connection is still good"
