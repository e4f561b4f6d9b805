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
NUMBERS = [
    "/api/bin?id=f", "/api/discrepancies", "/api/discrepancies.csv", "/api/overview", "/api/audits",
    "/api/lists/without-photo", "/api/lists/without-quantity.csv", "/lists/without-photo", "/lists/without-quantity",
    "/api/lists/variances", "/api/lists/variances.csv", "/lists/variances",
]  # fmt: skip
"""What shows numbers of bins, but for the pages that a blind auditor sees without them."""
WITHOUT = ["/discrepancies", "/audit/bin?id=f", "/api/audit?id=f", "/api/audit/queue", "/audit"]
"""What a blind auditor works with."""


@pytest.fixture
def floor(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A monitor of known records, on which nobody has signed in yet. Bin f holds 5 by its count, and 40 as expected."""
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


def _here(running: Running) -> dict[str, str]:
    return {"Origin": str(running.client.base_url).rstrip("/"), "Accept": HTML}


def _sign_in(running: Running, name: str = "Ada") -> None:
    answer = running.client.post("/login", data={"token": TOKEN, "name": name}, headers=_here(running))
    assert answer.status_code == 303


def _form(running: Running, path: str) -> dict[str, str]:
    """The form for an answer on a page, as a browser sends it: its first choice, and no number yet."""
    fields = [field for field in Parsed(running.page(path)).tags("input") if field.get("type") != "radio"]
    names = ("csrf", "bucket", "bin", "photo", "view", "next", "back")
    return {str(one["name"]): one.get("value") or "" for one in reversed(fields) if one["name"] in names} | {
        "answer": "count"
    }  # the first form of the page


def _send(running: Running, form: dict[str, str], **fields: str) -> str:
    """Send an answer; returns where it leads."""
    answer = running.client.post("/audits", data=form | fields, headers=_here(running))
    assert answer.status_code == 303
    return answer.headers["location"]


def _ways(running: Running) -> list[tuple[str, int | None, bool]]:
    """Answer, quantity, and whether it was blind, of all audits that somebody entered by name, the newest first."""
    items = running.get("/api/audits", **BEARER).json()["items"]
    return [(one["answer"], one["quantity"], one["blind"]) for one in items if one["auditor"]]


def _show(running: Running, numbers: str) -> None:
    csrf = next(
        field["value"] for field in Parsed(running.page("/discrepancies")).tags("input") if field.get("name") == "csrf"
    )
    answer = running.client.post("/sight", data={"csrf": csrf, "numbers": numbers}, headers=_here(running))
    assert (answer.status_code, answer.headers["location"]) == (303, "/discrepancies")


def _masked(answer: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """An answer without what is of the moment: the time, and the signed token."""
    text = re.sub(r'("view":"|name="view" value=")[^"]+', r"\1", answer.text)
    text = re.sub(r"As of <time[^<]*</time>", "", text)
    return answer.status_code, text, {n: v for n, v in answer.headers.items() if n not in ("date", "content-length")}


def test_blind_pages_are_identical_for_all_numbers(floor: Running, recorder: Recorder) -> None:
    """To the byte, headers included: so no ETag, order, link, colour or cursor tells them."""
    _sign_in(floor)
    before = {path: _masked(floor.client.get(path, headers=_here(floor))) for path in WITHOUT}
    assert {path: status for path, (status, _, _) in before.items()} == dict.fromkeys(WITHOUT, 200) | {"/audit": 303}
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
    assert {path: _masked(floor.client.get(path, headers=_here(floor))) for path in WITHOUT} == before


def test_recount_pages_are_identical_for_all_first_counts(floor: Running, recorder: Recorder) -> None:
    queue, view = "/discrepancies?variance=open", "/audit/bin?variance=open&bucket=bins&id=f"
    paths = [*WITHOUT, "/", queue, view, "/audit?variance=open", "/api/audit/queue?recount=true"]
    add_audit(recorder.engine, BUCKET, "f", 7, "Ada", blind=True)
    _sign_in(floor)
    assert "/audit/bin?variance=open&bucket=bins&id=d" in _links(floor, queue), "a script has counted that one"
    assert view not in _links(floor, queue), "Ada has counted it"
    _sign_in(floor, "Ben")
    assert "Count them again" in Parsed(floor.page("/discrepancies")).text
    assert view in _links(floor, queue)
    before = {path: _masked(floor.client.get(path, headers=_here(floor))) for path in paths}
    with recorder.engine.begin() as connection:
        for statement in (
            "UPDATE audits SET quantity = 9 WHERE bin_id = 'f'",
            "UPDATE variance_trail SET quantity = 9 WHERE person = 'Ada'",
        ):
            assert connection.exec_driver_sql(statement).rowcount == 1
    assert {path: _masked(floor.client.get(path, headers=_here(floor))) for path in paths} == before
    assert floor.client.get("/bin?variance=open&id=f").headers["location"] == "/audit/bin?variance=open&id=f"
    _send(floor, _form(floor, view), quantity="9")
    assert view not in _links(floor, queue)
    (found,) = floor.get("/api/lists/variances?prefix=f", **BEARER).json()["items"]
    assert (found["state"], found["expected"], found["quantity"]) == ("recounted", 40, 9)


def _links(running: Running, path: str) -> list[object]:
    return [link["href"] for link in Parsed(running.page(path)).tags("a")]


def test_pages_with_numbers_are_closed_to_blind_auditors(floor: Running) -> None:
    for path in NUMBERS:
        assert floor.get(path).status_code == 200, "reading is open"
    _sign_in(floor)
    for path in NUMBERS:
        answer = floor.client.get(path, headers=_here(floor))
        assert answer.status_code == 403, path
        assert floor.get(path, **BEARER).status_code == 200, "a script is no person"
    assert floor.client.get("/bin?id=f&saved=1").headers["location"] == "/audit/bin?id=f&saved=1"
    assert all("Expected" not in card and "Count " not in card for card in Parsed(floor.page("/")).cards)


def test_an_answer_on_the_blind_page_is_blind_and_then_both_numbers_are_shown(floor: Running) -> None:
    _sign_in(floor)
    form = _form(floor, "/audit/bin?id=f")
    location = _send(floor, form, quantity="6", reason="multipack", note="a set of 3")
    assert "the inventory said 40, the model 5." in Parsed(floor.page(location)).text
    page = Parsed(floor.page("/bin?id=f")).text
    assert "Inventory expects 40" in page
    assert "6 (multipack) a set of 3" in page
    assert floor.client.get("/audit/bin?id=f").headers["location"] == "/bin?id=f"
    assert _send(floor, form, quantity="6", reason="multipack", note="a set of 3") == location, "sent twice"
    _send(floor, _form(floor, "/bin?id=f"), quantity="40")
    _send(floor, form, quantity="41")
    assert _ways(floor) == [("count", 41, False), ("count", 40, False), ("count", 6, True)]
    assert floor.metric("binwatch_audited_counts", model="model-1", audited="more", outcome="under") == 1


def test_a_view_token_is_valid_for_one_bin_photo_and_person(floor: Running, recorder: Recorder) -> None:
    _sign_in(floor)
    form = _form(floor, "/audit/bin?id=f")
    for changed in ({"bin": "a"}, {"photo": "1"}, {"photo": ""}, {"view": "forged"}):
        assert "problem=foreign" in _send(floor, form | changed, quantity="3")
    _sign_in(floor, "Ben")
    assert "problem=foreign" in _send(floor, _form(floor, "/audit/bin?id=f") | {"view": form["view"]}, quantity="3")
    theirs = _form(floor, "/audit/bin?id=f")
    recorder.count("bin-images/f.jpg", 2, etag="another")
    assert "problem=stale" in _send(floor, theirs, quantity="3")
    assert "problem=answer" in _send(floor, theirs, answer="cannot_tell", quantity="3")
    assert "problem=answer" in _send(floor, theirs, answer="perhaps", quantity="3")
    assert "problem=quantity" in _send(floor, theirs)
    assert "problem=at_least" in _send(floor, theirs, answer="at_least", quantity="0")
    assert "problem=note" in _send(floor, theirs, quantity="3", note="two\nlines")
    assert _ways(floor) == []
    _send(floor, _form(floor, "/audit/bin?id=f") | {"view": ""}, quantity="3")
    assert _ways(floor) == [("count", 3, False)], "without the token it counts as in sight"


def test_counting_at_the_shelf_is_still_blind(floor: Running) -> None:
    _sign_in(floor)
    for answer, says in (("cannot_tell", "cannot be told from the photo"), ("go_and_count", "must go and count")):
        location = _send(floor, _form(floor, "/audit/bin?id=f"), answer=answer)
        page = Parsed(floor.page(location)).text
        assert says in page
        assert "the inventory said" not in page
    assert floor.client.get("/bin?id=f").status_code == 303
    queue = Parsed(floor.page("/discrepancies?audited=go_and_count"))
    assert "/audit/bin?audited=go_and_count&bucket=bins&id=f" in [link["href"] for link in queue.tags("a")]
    assert floor.get("/api/audit/queue?answer=go_and_count", **BEARER).json()["items"] == [
        {"bucket": BUCKET, "bin_id": "f", "photo_id": 6}
    ]
    _send(floor, _form(floor, "/audit/bin?id=f"), quantity="7")
    assert _ways(floor)[0] == ("count", 7, True)


@pytest.mark.parametrize("page", ["/bin?id=f", "/discrepancies", "/api/discrepancies.csv"])
def test_a_browser_that_saw_the_numbers_cannot_audit_that_bin_blind(floor: Running, page: str) -> None:
    floor.get(page)  # signed out, as in another tab
    _sign_in(floor)
    assert "The numbers of this bin were shown here" in Parsed(floor.page("/audit/bin?id=f")).text
    assert floor.get("/api/audit?id=f", **_here(floor)).json()["blind"] is False
    _send(floor, _form(floor, "/audit/bin?id=f"), quantity="5")
    _send(floor, _form(floor, "/audit/bin?id=g"), quantity="4")
    assert _ways(floor) == [("count", 4, page != "/api/discrepancies.csv"), ("count", 5, False)]


def test_revealing_numbers_is_logged(floor: Running) -> None:
    _sign_in(floor)
    _show(floor, "show")
    assert "expected 40" in Parsed(floor.page("/discrepancies")).text
    page = Parsed(floor.page("/bin?id=f"))
    assert "it is for somebody else to audit" in page.text
    assert floor.client.get("/audit/bin?id=f").headers["location"] == "/bin?id=f"
    _show(floor, "hide")
    assert "expected 40" not in Parsed(floor.page("/discrepancies")).text
    _send(floor, _form(floor, "/audit/bin?id=f"), quantity="5")
    assert _ways(floor) == [("count", 5, False)]


def test_a_full_cookie_counts_as_having_seen_all_bins() -> None:
    tracker, cookie = SightTracker(b"secret", sighted=False), ""
    for first in range(0, MAX_SEEN_BINS + 1, 25):
        assert tracker.may_audit_blind(_with(cookie), BUCKET, "another")
        response = Response()
        tracker.note_shown(_with(cookie), response, [(BUCKET, str(first + number)) for number in range(25)])
        set_cookie = response.headers["set-cookie"]
        assert len(set_cookie) < 4_096
        cookie = set_cookie.partition(";")[0]
    assert not tracker.may_audit_blind(_with(cookie), BUCKET, "another")


def _with(cookie: str) -> Request:
    return Request({"type": "http", "scheme": "http", "path": "/", "headers": [(b"cookie", cookie.encode())]})


def test_a_script_may_audit_blind_with_a_view_token(floor: Running) -> None:
    assert floor.get("/api/audit?id=f").status_code == 401
    shown = floor.get("/api/audit?id=f", **BEARER).json()
    assert (shown["articles"], shown["photo"]["id"], shown["blind"]) == (
        [{"sku": "B0", "name": "A mug", "size": "5 × 4 × 4 in"}], 6, True,
    )  # fmt: skip
    body = {"bin": "f", "auditor": "Eve", "photo": 6, "answer": "cannot_tell", "reason": "blurred"}
    unclear = floor.client.post("/api/audits", json=body | {"view": shown["view"]}, headers=BEARER).json()
    assert (unclear["blind"], unclear["expected"], unclear["predicted"]) == (True, None, None)
    for view, blind in ((shown["view"], True), (None, False)):
        number = {"answer": "at_least", "quantity": 6 + blind, "view": view}
        saved = floor.client.post("/api/audits", json=body | number, headers=BEARER).json()
        assert (saved["blind"], saved["expected"], saved["of_count"], saved["of_inventory"]) == (
            blind, 40, "under", None,
        )  # fmt: skip
    assert floor.client.post("/api/audits", json=body | {"view": "x"}, headers=BEARER).status_code == 403
    assert floor.client.post("/api/audits", json={"bin": "f"}, headers=BEARER).status_code == 422
    listed = floor.get("/api/discrepancies?answer=at_least").json()["items"]
    assert [(one["bin_id"], one["audit"]["quantity"], one["audit"]["blind"]) for one in listed] == [("f", 6, False)]
    row = floor.get("/api/discrepancies.csv?answer=at_least").text.splitlines()[1].split(",")
    assert row[-8:-7] + row[-5:] == ["", AuditAnswer.AT_LEAST, "6", "blurred", "", "0"]


def test_sighted_audits_can_be_allowed_by_setting(floor: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_AUDIT_VIEW", "sighted")
    with running_monitor() as sighted:
        assert sighted.get("/audit").headers["location"] == "/bin?bucket=bins&id=f"
        _sign_in(sighted)
        assert "expected 40" in Parsed(sighted.page("/discrepancies")).text
        _send(sighted, _form(sighted, "/bin?id=f"), quantity="5")
        assert _ways(sighted) == [("count", 5, False)]
        assert SEEN_COOKIE not in sighted.client.cookies
