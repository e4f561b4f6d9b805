"""Auditor accuracy: who may see it, what it is computed from, and that repeats are as blind as first audits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, select

from binwatch.records.audits import add_audit
from binwatch.records.repeats import add_known_answers, next_bin_to_audit
from binwatch.records.tables import AuditRepeat
from monitor.views.auditors import read_auditors
from tests.monitor.conftest import HTML, Recorder, Running, running_monitor
from tests.monitor.drifting import BUCKET
from tests.monitor.html import Parsed

TOKEN, APPROVER = "a token of some length", "another token, of approvers"
PATHS = ["/auditors", "/api/auditors"]


@pytest.fixture
def site(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor of two bins, one of them audited by Ada, where half of the random bins are repeats if possible."""
    for name in ("a", "b"):
        recorder.pair(name, 3, 4)
    add_audit(recorder.engine, BUCKET, "a", 7, "Ada", blind=True)
    monkeypatch.setenv("BINWATCH_DATABASE_URL", recorder.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    monkeypatch.setenv("BINWATCH_MONITOR_APPROVER_TOKEN", APPROVER)
    monkeypatch.setenv("BINWATCH_AUDIT_REPEATS", "0.5")
    with running_monitor() as running:
        yield running


def _form_headers(running: Running) -> dict[str, str]:
    return {"Origin": str(running.client.base_url).rstrip("/"), "Accept": HTML}


def _sign_in(running: Running, name: str, token: str = TOKEN) -> None:
    answer = running.client.post("/login", data={"token": token, "name": name}, headers=_form_headers(running))
    assert answer.status_code == 303


def _csrf(running: Running) -> str:
    fields = Parsed(running.page("/discrepancies")).tags("input")
    return next(field["value"] or "" for field in fields if field.get("name") == "csrf")


def _repeats(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(select(AuditRepeat.auditor)).scalars())


@pytest.mark.parametrize("path", PATHS)
def test_only_approvers_see_auditor_accuracy(site: Running, path: str) -> None:
    assert site.browse(path).status_code == 403
    assert site.get(path, Authorization=f"Bearer {TOKEN}").status_code == 403
    assert site.get(path, Authorization=f"Bearer {APPROVER}").status_code == 200
    _sign_in(site, "Ada")
    refused = site.browse(path)
    assert (refused.status_code, "approvers" in refused.text) == (403, True)
    assert "/auditors" not in site.page("/")
    _sign_in(site, "Eve", APPROVER)
    assert site.browse(path).status_code == 200
    assert "/auditors" in site.page("/")
    site.client.post("/logout", data={"csrf": _csrf(site)}, headers=_form_headers(site))
    assert site.browse(path).status_code == 403


def test_auditor_accuracy_is_hidden_without_approvers(site: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    _sign_in(site, "Eve", APPROVER)
    cookies = dict(site.client.cookies)
    monkeypatch.delenv("BINWATCH_MONITOR_APPROVER_TOKEN")
    with running_monitor() as running:
        running.client.cookies.update(cookies)
        for token in (TOKEN, APPROVER):
            answer = running.get("/api/auditors", Authorization=f"Bearer {token}")
            assert (answer.status_code, "BINWATCH_MONITOR_APPROVER_TOKEN" in answer.json()["detail"]) == (403, True)


def test_approvers_may_audit_and_are_named_by_a_proxy(site: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"bin": "b", "quantity": 4, "auditor": "Eve"}
    saved = site.client.post("/api/audits", json=body, headers={"Authorization": f"Bearer {APPROVER}"})
    assert saved.status_code == 201
    monkeypatch.setenv("BINWATCH_MONITOR_USER_HEADER", "X-User")
    monkeypatch.setenv("BINWATCH_MONITOR_ROLE_HEADER", "X-Roles")
    with running_monitor() as running:
        running.client.headers["X-User"] = "Eve"
        assert running.browse("/auditors").status_code == 403
        running.client.headers["X-Roles"] = "approver"
        assert running.browse("/auditors").status_code == 200


def _wait_for_repeat(site: Running, csrf: str, engine: Engine) -> str:
    """Request random bins until one is a repeat of Ada's audit, which has probability 1/2, and return its location."""
    for _ in range(60):
        answer = site.client.post("/audits/next", data={"csrf": csrf}, headers=_form_headers(site))
        if _repeats(engine):
            return str(answer.headers["location"])
    raise AssertionError("no bin was given twice")


def test_a_repeat_looks_like_an_unaudited_bin(site: Running, recorder: Recorder) -> None:
    _sign_in(site, "Ben")
    location = _wait_for_repeat(site, _csrf(site), recorder.engine)
    assert (location, _repeats(recorder.engine)) == ("/audit/bin?bucket=bins&id=a&random=1", ["Ben"])
    pages = []
    for statement in (
        "SELECT 1",
        "UPDATE audits SET quantity = 2, note = 'some note', reason = 'hidden', auditor = 'Cleo'",
        "UPDATE audits SET answer = 'cannot_tell', quantity = NULL",
    ):
        with recorder.engine.begin() as connection:
            connection.exec_driver_sql(statement)
        page = site.client.get(location, headers=_form_headers(site))
        assert page.status_code == 200
        shown = Parsed(page.text)
        inputs = [(item.get("name"), item.get("value")) for item in shown.tags("input") if item.get("name") != "view"]
        text = shown.text.partition("As of")[0]
        api = site.get("/api/audit?id=a", **_form_headers(site)).json() | {"view": None}
        pages.append((text, inputs, sorted(page.headers), api))
        assert not {"Ada", "Cleo", "some note"} & set(text.split())
    assert pages[0] == pages[1] == pages[2]


def test_a_blind_repeat_counts_towards_agreement(site: Running, recorder: Recorder) -> None:
    _sign_in(site, "Ben")
    location = _wait_for_repeat(site, _csrf(site), recorder.engine)
    names = ("csrf", "bucket", "bin", "photo", "view", "back")
    fields = {
        str(item["name"]): item.get("value") or ""
        for item in Parsed(site.page(location)).tags("input")
        if item.get("name") in names
    }
    saved = site.client.post("/audits", data=fields | {"answer": "count", "quantity": "6"}, headers=_form_headers(site))
    assert "saved=" in saved.headers["location"]
    report = site.get("/api/auditors", Authorization=f"Bearer {APPROVER}").json()
    assert (report["given"], report["answered"], report["tested"]) == (1, 1, 0)
    assert {(item["auditor"], item["known"]) for item in report["items"]} == {("Ada", None), ("Ben", None)}
    for item in report["items"]:
        assert item["others"]["exact"]["share"] == 0
        assert item["others"]["within_one"] == {
            "share": 1, "audits": 1, "equivalent": 1, "interval": {"low": pytest.approx(0.025), "high": 1}
        }  # fmt: skip
    _sign_in(site, "Eve", APPROVER)
    page = Parsed(site.page("/auditors")).text
    assert "1 photo was given twice, 1 counted twice" in page
    assert "Ada" not in site.get("/metrics").text, "names must not be labels"


def test_scripts_get_repeats_for_the_auditor_they_name(site: Running, recorder: Recorder) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for _ in range(20):
        assert site.client.post("/api/audits/next?auditor=", headers=bearer).json()["bin"] == "b", (
            "an auditor without a name gets no repeats"
        )
    answers: list[dict[str, Any]] = []
    while len(answers) < 60 and not _repeats(recorder.engine):
        answers.append(site.client.post("/api/audits/next?auditor=Ben", headers=bearer).json())
    assert (answers[-1], _repeats(recorder.engine)) == ({"bucket": BUCKET, "bin": "a", "photo": 1}, ["Ben"])
    assert site.client.post("/api/audits/next?auditor=%00", headers=bearer).status_code == 422


def test_agreement_uses_only_blind_repeats_and_known_photos(records_engine: Engine) -> None:
    """Only blind counts are used, of repeated photos and of photos with known quantities."""
    recorder = Recorder(records_engine)
    for name in ("twice", "recount", "known", "open"):
        recorder.pair(name, 3, 3)
    for name, quantity in (("twice", 4), ("recount", 9)):
        add_audit(records_engine, BUCKET, name, quantity, "Ada", blind=True)
        if name == "twice":
            assert next_bin_to_audit(records_engine, "Ben", 1.0).bin_id == name
        add_audit(records_engine, BUCKET, name, 4, "Ben", blind=True)
    add_audit(records_engine, BUCKET, "twice", 8, "Ben", blind=True)  # no longer blind
    assert add_known_answers(records_engine, BUCKET, {"known": 5, "nowhere": 1}, "known.csv") == 1
    for name, quantity, blind in (("Ada", 5, True), ("Ada", 6, True), ("Ben", 5, False), ("Cleo", 6, True)):
        add_audit(records_engine, BUCKET, "known", quantity, name, blind=blind)
    add_audit(records_engine, BUCKET, "open", 3, "Ada", blind=True)
    assert next_bin_to_audit(records_engine, "Ben", 1.0).bin_id == "open"
    with records_engine.connect() as connection:
        report = read_auditors(connection)
    assert (report.given, report.answered, report.tested) == (2, 1, 2)
    by_name = {item.auditor: item for item in report.items}
    shares = {
        name: (
            item.others and (item.others.exact.share, item.others.exact.audits),
            item.known and item.known.exact.share,
        )
        for name, item in by_name.items()
    }
    assert shares == {"Ada": ((1, 1), 1), "Ben": ((1, 1), None), "Cleo": (None, 0)}
    assert by_name["Ben"].accuracy.share > by_name["Cleo"].accuracy.share


def test_a_repeat_of_a_photo_with_a_known_quantity_counts_once(records_engine: Engine) -> None:
    Recorder(records_engine).pair("a", 3, 3)
    add_audit(records_engine, BUCKET, "a", 4, "Ada", blind=True)
    assert next_bin_to_audit(records_engine, "Ben", 1.0).bin_id == "a"
    for name in ("Ben", "Cleo"):
        add_audit(records_engine, BUCKET, "a", 4, name, blind=True)
    add_known_answers(records_engine, BUCKET, {"a": 4}, "known.csv")
    with records_engine.connect() as connection:
        report = read_auditors(connection)
    assert (report.answered, report.tested) == (1, 3)
    answers = {
        item.auditor: (
            item.others and item.others.exact.audits,
            item.known and item.known.exact.audits,
            item.accuracy.audits,
        )
        for item in report.items
    }
    assert answers == {"Ada": (1, 1, 1), "Ben": (1, 1, 1), "Cleo": (None, 1, 1)}


def test_sighted_auditors_get_no_repeats_from_the_api(site: Running, recorder: Recorder) -> None:
    _sign_in(site, "Ben")
    site.client.cookies.set("binwatch_numbers", "show")
    for _ in range(20):
        assert site.client.post("/api/audits/next", headers=_form_headers(site)).status_code == 201
    assert _repeats(recorder.engine) == []
