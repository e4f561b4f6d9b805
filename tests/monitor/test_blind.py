"""Blind audits: auditors see no numbers before they answer, and sighted audits are never recorded as blind."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from binwatch.records.audits import AuditAnswer, add_audit
from binwatch.records.store import NewExpectation, Store
from monitor.access.sight import MAX_SEEN_BINS, SEEN_COOKIE, SightTracker
from tests.monitor.conftest import HTML, Recorder, Running, record_known, running_monitor
from tests.monitor.drifting import BUCKET, DAY
from tests.monitor.html import Parsed

TOKEN = "a token of some length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PATHS_WITH_NUMBERS = [
    "/api/bin?id=f", "/api/discrepancies", "/api/discrepancies.csv", "/api/overview", "/api/audits",
    "/api/lists/without-photo", "/api/lists/without-quantity.csv", "/lists/without-photo", "/lists/without-quantity",
    "/api/lists/variances", "/api/lists/variances.csv", "/lists/variances",
]  # fmt: skip
"""Paths that show numbers of bins, except for pages that hide them from blind auditors."""
BLIND_PATHS = ["/discrepancies", "/audit/bin?id=f", "/api/audit?id=f", "/api/audit/queue", "/audit"]
"""Paths that a blind auditor works with."""


@pytest.fixture
def site(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor of known records, signed out. Bin f has a count of 5 and an expected quantity of 40."""
    record_known(recorder)
    articles = [{"sku": "B0", "name": "A mug", "quantity": 40, "size": "5 × 4 × 4 in"}]
    listed = NewExpectation(
        bucket=BUCKET, bin_id="f", source="f.json", etag="again", modified_at=DAY, quantity=40, contents=articles
    )
    assert Store(recorder.engine).add_expectations([listed]) == 1
    monkeypatch.setenv("BINWATCH_DATABASE_URL", recorder.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    with running_monitor() as running:
        yield running


def _form_headers(running: Running) -> dict[str, str]:
    return {"Origin": str(running.client.base_url).rstrip("/"), "Accept": HTML}


def _sign_in(running: Running, name: str = "Ada") -> None:
    answer = running.client.post("/login", data={"token": TOKEN, "name": name}, headers=_form_headers(running))
    assert answer.status_code == 303


def _form(running: Running, path: str) -> dict[str, str]:
    """Return the answer form of a page as a browser sends it: with its first choice and without a number."""
    fields = [field for field in Parsed(running.page(path)).tags("input") if field.get("type") != "radio"]
    names = ("csrf", "bucket", "bin", "photo", "view", "next", "back")
    return {str(item["name"]): item.get("value") or "" for item in reversed(fields) if item["name"] in names} | {
        "answer": "count"
    }  # the first form of the page


def _send(running: Running, form: dict[str, str], **fields: str) -> str:
    """Send an answer and return the location of the redirect."""
    answer = running.client.post("/audits", data=form | fields, headers=_form_headers(running))
    assert answer.status_code == 303
    return answer.headers["location"]


def _named_audits(running: Running) -> list[tuple[str, int | None, bool]]:
    """Return (answer, quantity, blind) of all audits with an auditor's name, newest first."""
    items = running.get("/api/audits", **BEARER).json()["items"]
    return [(item["answer"], item["quantity"], item["blind"]) for item in items if item["auditor"]]


def _set_numbers(running: Running, numbers: str) -> None:
    csrf = next(
        field["value"] for field in Parsed(running.page("/discrepancies")).tags("input") if field.get("name") == "csrf"
    )
    answer = running.client.post("/sight", data={"csrf": csrf, "numbers": numbers}, headers=_form_headers(running))
    assert (answer.status_code, answer.headers["location"]) == (303, "/discrepancies")


def _masked(answer: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """Return status, text and headers of a response without the time and the signed token."""
    text = re.sub(r'("view":"|name="view" value=")[^"]+', r"\1", answer.text)
    text = re.sub(r"As of <time[^<]*</time>", "", text)
    return answer.status_code, text, {n: v for n, v in answer.headers.items() if n not in ("date", "content-length")}


def test_blind_pages_are_identical_for_all_numbers(site: Running, recorder: Recorder) -> None:
    """Byte for byte and including headers: no ETag, order, link, colour or cursor reveals the numbers."""
    _sign_in(site)
    before = {path: _masked(site.client.get(path, headers=_form_headers(site))) for path in BLIND_PATHS}
    assert {path: status for path, (status, _, _) in before.items()} == dict.fromkeys(BLIND_PATHS, 200) | {
        "/audit": 303
    }
    assert "A mug" in before["/audit/bin?id=f"][1]
    assert "5 × 4 × 4 in" in before["/audit/bin?id=f"][1]
    with recorder.engine.begin() as connection:
        for statement in (
            "UPDATE counts SET predicted = 1, probabilities = '[0.1, 0.9, 0, 0, 0, 0, 0]' WHERE bin_id = 'f'",
            "UPDATE expectations SET quantity = 6, contents = replace(contents, '40', '6') WHERE bin_id = 'f'",
            "UPDATE comparisons SET predicted = 1, expected = 6, outcome = 'under' WHERE bin_id = 'f'",
            "UPDATE current_comparisons SET predicted = 1, expected = 6, difference = -5, chance = 0.0,"
            " p_value = 0.001, p_missing = 0.001, doubt = 0.001, doubt_one_sided = 0.001 WHERE bin_id = 'f'",
        ):
            assert connection.exec_driver_sql(statement).rowcount
    assert {path: _masked(site.client.get(path, headers=_form_headers(site))) for path in BLIND_PATHS} == before


def test_recount_pages_are_identical_for_all_first_counts(site: Running, recorder: Recorder) -> None:
    queue, view = "/discrepancies?variance=open", "/audit/bin?variance=open&bucket=bins&id=f"
    paths = [*BLIND_PATHS, "/", queue, view, "/audit?variance=open", "/api/audit/queue?recount=true"]
    add_audit(recorder.engine, BUCKET, "f", 7, "Ada", blind=True)
    _sign_in(site)
    assert "/audit/bin?variance=open&bucket=bins&id=d" in _links(site, queue), "a script has counted that one"
    assert view not in _links(site, queue), "Ada has counted it"
    _sign_in(site, "Ben")
    assert "Count them again" in Parsed(site.page("/discrepancies")).text
    assert view in _links(site, queue)
    before = {path: _masked(site.client.get(path, headers=_form_headers(site))) for path in paths}
    with recorder.engine.begin() as connection:
        for statement in (
            "UPDATE audits SET quantity = 9 WHERE bin_id = 'f'",
            "UPDATE variance_trail SET quantity = 9 WHERE person = 'Ada'",
        ):
            assert connection.exec_driver_sql(statement).rowcount == 1
    assert {path: _masked(site.client.get(path, headers=_form_headers(site))) for path in paths} == before
    assert site.client.get("/bin?variance=open&id=f").headers["location"] == "/audit/bin?variance=open&id=f"
    _send(site, _form(site, view), quantity="9")
    assert view not in _links(site, queue)
    (variance,) = site.get("/api/lists/variances?prefix=f", **BEARER).json()["items"]
    assert (variance["state"], variance["expected"], variance["quantity"]) == ("recounted", 40, 9)


def _links(running: Running, path: str) -> list[object]:
    return [link["href"] for link in Parsed(running.page(path)).tags("a")]


def test_pages_with_numbers_are_closed_to_blind_auditors(site: Running) -> None:
    for path in PATHS_WITH_NUMBERS:
        assert site.get(path).status_code == 200, "reading needs no sign-in"
    _sign_in(site)
    for path in PATHS_WITH_NUMBERS:
        answer = site.client.get(path, headers=_form_headers(site))
        assert answer.status_code == 403, path
        assert site.get(path, **BEARER).status_code == 200, "scripts may read numbers"
    assert site.client.get("/bin?id=f&saved=1").headers["location"] == "/audit/bin?id=f&saved=1"
    assert all("Expected" not in card and "Count " not in card for card in Parsed(site.page("/")).cards)


def test_an_answer_on_the_blind_page_is_blind_and_then_both_numbers_are_shown(site: Running) -> None:
    _sign_in(site)
    form = _form(site, "/audit/bin?id=f")
    location = _send(site, form, quantity="6", reason="multipack", note="a set of 3")
    assert "the inventory said 40, the model 5." in Parsed(site.page(location)).text
    page = Parsed(site.page("/bin?id=f")).text
    assert "Inventory expects 40" in page
    assert "6 (multipack) a set of 3" in page
    assert site.client.get("/audit/bin?id=f").headers["location"] == "/bin?id=f"
    assert _send(site, form, quantity="6", reason="multipack", note="a set of 3") == location, "sent twice"
    _send(site, _form(site, "/bin?id=f"), quantity="40")
    _send(site, form, quantity="41")
    assert _named_audits(site) == [("count", 41, False), ("count", 40, False), ("count", 6, True)]
    assert site.metric("binwatch_audited_counts", model="model-1", audited="more", outcome="under") == 1


def test_a_view_token_is_valid_for_one_bin_photo_and_person(site: Running, recorder: Recorder) -> None:
    _sign_in(site)
    form = _form(site, "/audit/bin?id=f")
    for changed in ({"bin": "a"}, {"photo": "1"}, {"photo": ""}, {"view": "forged"}):
        assert "problem=foreign" in _send(site, form | changed, quantity="3")
    _sign_in(site, "Ben")
    assert "problem=foreign" in _send(site, _form(site, "/audit/bin?id=f") | {"view": form["view"]}, quantity="3")
    bens_form = _form(site, "/audit/bin?id=f")
    recorder.count("bin-images/f.jpg", 2, etag="another")
    assert "problem=stale" in _send(site, bens_form, quantity="3")
    assert "problem=answer" in _send(site, bens_form, answer="cannot_tell", quantity="3")
    assert "problem=answer" in _send(site, bens_form, answer="perhaps", quantity="3")
    assert "problem=quantity" in _send(site, bens_form)
    assert "problem=at_least" in _send(site, bens_form, answer="at_least", quantity="0")
    assert "problem=note" in _send(site, bens_form, quantity="3", note="two\nlines")
    assert _named_audits(site) == []
    _send(site, _form(site, "/audit/bin?id=f") | {"view": ""}, quantity="3")
    assert _named_audits(site) == [("count", 3, False)], "without the token it counts as sighted"


def test_counting_at_the_shelf_is_still_blind(site: Running) -> None:
    _sign_in(site)
    for answer, says in (("cannot_tell", "cannot be told from the photo"), ("go_and_count", "must go and count")):
        location = _send(site, _form(site, "/audit/bin?id=f"), answer=answer)
        page = Parsed(site.page(location)).text
        assert says in page
        assert "the inventory said" not in page
    assert site.client.get("/bin?id=f").status_code == 303
    queue = Parsed(site.page("/discrepancies?audited=go_and_count"))
    assert "/audit/bin?audited=go_and_count&bucket=bins&id=f" in [link["href"] for link in queue.tags("a")]
    assert site.get("/api/audit/queue?answer=go_and_count", **BEARER).json()["items"] == [
        {"bucket": BUCKET, "bin_id": "f", "photo_id": 6}
    ]
    _send(site, _form(site, "/audit/bin?id=f"), quantity="7")
    assert _named_audits(site)[0] == ("count", 7, True)


@pytest.mark.parametrize("page", ["/bin?id=f", "/discrepancies", "/api/discrepancies.csv"])
def test_a_browser_that_saw_the_numbers_cannot_audit_that_bin_blind(site: Running, page: str) -> None:
    site.get(page)  # while signed out, as in another tab
    _sign_in(site)
    assert "The numbers of this bin were shown here" in Parsed(site.page("/audit/bin?id=f")).text
    assert site.get("/api/audit?id=f", **_form_headers(site)).json()["blind"] is False
    _send(site, _form(site, "/audit/bin?id=f"), quantity="5")
    _send(site, _form(site, "/audit/bin?id=g"), quantity="4")
    assert _named_audits(site) == [("count", 4, page != "/api/discrepancies.csv"), ("count", 5, False)]


def test_revealing_numbers_is_logged(site: Running) -> None:
    _sign_in(site)
    _set_numbers(site, "show")
    assert "expected 40" in Parsed(site.page("/discrepancies")).text
    page = Parsed(site.page("/bin?id=f"))
    assert "it is for somebody else to audit" in page.text
    assert site.client.get("/audit/bin?id=f").headers["location"] == "/bin?id=f"
    _set_numbers(site, "hide")
    assert "expected 40" not in Parsed(site.page("/discrepancies")).text
    _send(site, _form(site, "/audit/bin?id=f"), quantity="5")
    assert _named_audits(site) == [("count", 5, False)]


def test_a_full_cookie_counts_as_having_seen_all_bins() -> None:
    tracker, cookie = SightTracker(b"secret", sighted=False), ""
    for first in range(0, MAX_SEEN_BINS + 1, 25):
        assert tracker.may_audit_blind(_request_with_cookie(cookie), BUCKET, "another")
        response = Response()
        tracker.note_shown(
            _request_with_cookie(cookie), response, [(BUCKET, str(first + number)) for number in range(25)]
        )
        set_cookie = response.headers["set-cookie"]
        assert len(set_cookie) < 4_096
        cookie = set_cookie.partition(";")[0]
    assert not tracker.may_audit_blind(_request_with_cookie(cookie), BUCKET, "another")


def _request_with_cookie(cookie: str) -> Request:
    return Request({"type": "http", "scheme": "http", "path": "/", "headers": [(b"cookie", cookie.encode())]})


def test_a_script_may_audit_blind_with_a_view_token(site: Running) -> None:
    assert site.get("/api/audit?id=f").status_code == 401
    shown = site.get("/api/audit?id=f", **BEARER).json()
    assert (shown["articles"], shown["photo"]["id"], shown["blind"]) == (
        [{"sku": "B0", "name": "A mug", "size": "5 × 4 × 4 in"}], 6, True,
    )  # fmt: skip
    body = {"bin": "f", "auditor": "Eve", "photo": 6, "answer": "cannot_tell", "reason": "blurred"}
    unclear = site.client.post("/api/audits", json=body | {"view": shown["view"]}, headers=BEARER).json()
    assert (unclear["blind"], unclear["expected"], unclear["predicted"]) == (True, None, None)
    for view, blind in ((shown["view"], True), (None, False)):
        answer = {"answer": "at_least", "quantity": 6 + blind, "view": view}
        saved = site.client.post("/api/audits", json=body | answer, headers=BEARER).json()
        assert (saved["blind"], saved["expected"], saved["of_count"], saved["of_inventory"]) == (
            blind, 40, "under", None,
        )  # fmt: skip
    assert site.client.post("/api/audits", json=body | {"view": "x"}, headers=BEARER).status_code == 403
    assert site.client.post("/api/audits", json={"bin": "f"}, headers=BEARER).status_code == 422
    listed = site.get("/api/discrepancies?answer=at_least").json()["items"]
    assert [(item["bin_id"], item["audit"]["quantity"], item["audit"]["blind"]) for item in listed] == [("f", 6, False)]
    row = site.get("/api/discrepancies.csv?answer=at_least").text.splitlines()[1].split(",")
    assert row[-8:-7] + row[-5:] == ["", AuditAnswer.AT_LEAST, "6", "blurred", "", "0"]


def test_sighted_audits_can_be_allowed_by_setting(site: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_AUDIT_VIEW", "sighted")
    with running_monitor() as sighted:
        assert sighted.get("/audit").headers["location"] == "/bin?bucket=bins&id=f"
        _sign_in(sighted)
        assert "expected 40" in Parsed(sighted.page("/discrepancies")).text
        _send(sighted, _form(sighted, "/bin?id=f"), quantity="5")
        assert _named_audits(sighted) == [("count", 5, False)]
        assert SEEN_COOKIE not in sighted.client.cookies
