"""Errors: a page with a remedy for browsers and problem JSON for scripts, with the same status."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from binwatch.errors import BinwatchError
from monitor.access.bodies import MAX_BODY_BYTES
from monitor.error_responses import MESSAGES
from monitor.records import RecordsDown
from tests.monitor.conftest import HTML, Recorder, Running, running_monitor
from tests.monitor.drifting import BUCKET
from tests.monitor.html import Parsed

BEARER = {"Authorization": "Bearer a token of some length"}


@pytest.fixture
def site(known_records: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor of known records with a configured token."""
    monkeypatch.setenv("BINWATCH_DATABASE_URL", known_records.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", BEARER["Authorization"].removeprefix("Bearer "))
    with running_monitor() as running:
        yield running


def _problem(answer: httpx.Response, status: int) -> str:
    """Return the detail of a problem JSON response; check that it is complete and not cacheable."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers["cache-control"] == ("no-cache" if "/static/" in str(answer.url) else "no-store")
    assert answer.headers["x-content-type-options"] == "nosniff"
    body = answer.json()
    assert {"type", "title", "status", "detail"} <= set(body) <= {"type", "title", "status", "detail", "faults"}
    assert (body["type"], body["status"]) == ("about:blank", status)
    detail: str = body["detail"]
    return detail


def _page(answer: httpx.Response, status: int) -> str:
    """Return the text of an error page."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    text = Parsed(answer.text).text
    assert "To the overview" in text
    return text


@pytest.mark.parametrize(
    ("path", "status", "heading", "detail"),
    [
        ("/nowhere", 404, "There is no such page", "Not Found"),
        ("/bin?id=nobody", 404, "There is no such bin", "nothing is recorded of a bin 'nobody'"),
        ("/?model=other", 404, "There is no such model", "no photo was counted by a model 'other'"),
        ("/discrepancies?after=x", 400, "This address cannot be understood", "'x' is not a cursor"),
        ("/discrepancies?size=9", 422, "size: Input should be less than or equal to 6", "size: Input should be less"),
        ("/drift?window=2d", 422, "This address cannot be understood", "window: Input should be '1h'"),
        ("/logout", 405, "Method Not Allowed", "Method Not Allowed"),
        ("/static/nothing.css", 404, "There is no such page", "Not Found"),
    ],
)
def test_missing_and_invalid_addresses(site: Running, path: str, status: int, heading: str, detail: str) -> None:
    assert heading in _page(site.browse(path), status)
    assert detail in _problem(site.get(path), status)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/nowhere", 404),
        ("/api/bin?id=nobody", 404),
        ("/api/overview?model=other", 404),
        ("/api/discrepancies?after=x", 400),
        ("/api/discrepancies?limit=0", 422),
        ("/photos/999", 404),
        ("/photos/x", 422),
    ],
)
def test_api_errors_are_json_in_a_browser_too(site: Running, path: str, status: int) -> None:
    assert _problem(site.browse(path), status) == _problem(site.get(path), status)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nowhere", 404), ("/auditors", 403), ("/discrepancies?after=x", 400), ("/discrepancies?size=9", 422)],
)
def test_an_error_page_links_to_signing_in_and_back(site: Running, path: str, status: int) -> None:
    answer = site.browse(path)
    assert answer.status_code == status
    links = [link["href"] for link in Parsed(answer.text).tags("a")]
    assert f"/login?next={quote(path)}" in links
    form = {"name": "Ada", "token": BEARER["Authorization"].removeprefix("Bearer "), "next": path}
    signed_in = site.client.post("/login", data=form, headers={"Sec-Fetch-Site": "same-origin"})
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, path)
    page_after_signing_in = Parsed(site.browse(path).text)
    assert "Ada blind Sign out" in page_after_signing_in.text
    assert not [link for link in page_after_signing_in.tags("a") if "/login" in (link["href"] or "")]


def test_signing_in_after_a_failed_form_redirects_to_a_page(site: Running) -> None:
    answer = site.client.post("/audits/next", headers={"Accept": HTML, "Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert "/login" in [link["href"] for link in Parsed(answer.text).tags("a")]


def test_all_invalid_fields_are_listed(site: Running) -> None:
    answer = site.client.post("/api/audits", json={"quantity": "3", "more": 1}, headers=BEARER)
    assert _problem(answer, 422) == "bin: Field required"
    assert [fault["where"] for fault in answer.json()["faults"]] == ["body.bin", "body.quantity", "body.more"]
    assert all(fault["says"] for fault in answer.json()["faults"])


def test_errors_before_the_app_have_the_same_format(site: Running) -> None:
    assert "BINWATCH_MONITOR_HOSTS" in _problem(site.get("/", Host="evil.example"), 421)
    assert "BINWATCH_MONITOR_HOSTS" in _page(site.get("/", Host="evil.example", Accept=HTML), 421)
    large = b"x" * (MAX_BODY_BYTES + 1)
    assert "over the limit" in _problem(site.client.post("/audits", content=large), 413)
    assert "over the limit" in _page(site.client.post("/audits", content=large, headers={"Accept": HTML}), 413)


def test_outage_errors_do_not_name_database_or_endpoint(site: Running, tmp_path: Path) -> None:
    assert "object store" in _problem(site.get("/photos/1"), 503)
    (tmp_path / "records.db").rename(tmp_path / "away.db")
    assert "the monitor's log says why" in _problem(site.get("/"), 503)
    assert "The records cannot be read" in _page(site.browse("/"), 503)


def test_an_internal_error(site: Running, known_records: Recorder) -> None:
    with known_records.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE confusion_totals SET reference = 'odd' WHERE reference = 'audit'")
    assert "Something is wrong with the monitor" in _page(site.browse("/"), 500)
    for path in ("/", "/api/summary", "/metrics"):
        assert _problem(site.get(path), 500) == "the monitor failed on this request; its log says why"
    assert site.get("/healthz").status_code == 200


def test_problem_json_is_in_the_openapi_description(site: Running) -> None:
    document = site.get("/openapi.json").json()
    wrong = [
        (path, status, set(response["content"]))
        for path, operations in document["paths"].items()
        for operation in operations.values()
        for status, response in operation["responses"].items()
        if status >= "400"
    ]
    assert len(wrong) > 20
    assert {media for _, _, result in wrong for media in result} == {"application/problem+json"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_error_has_a_text() -> None:
    for kind, words in MESSAGES.items():
        assert issubclass(kind, BinwatchError)
        assert words.title
    assert "database" not in MESSAGES[RecordsDown].detail
