"""Variances on pages, in the API and on the command line: who may decide, and what other systems get."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from binwatch.errors import SettingsError
from binwatch.records.audits import add_audit
from binwatch.records.variances import VarianceState
from binwatch.settings import Settings
from monitor.__main__ import app
from monitor.access.authentication import COOKIE, Authenticator
from monitor.access.sessions import SessionCookies
from monitor.views.blind import read_queue
from monitor.views.discrepancies import Filters, waiting_for_audit
from tests.monitor.conftest import HTML, Recorder, Running, record_known, running_monitor
from tests.monitor.drifting import BUCKET
from tests.monitor.html import Parsed

TOKEN, APPROVERS = "a token of some length", "another token of some length"
BEARER, APPROVING = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, APPROVERS))
SIGHTED_COOKIE = "binwatch_numbers=show"
APPROVED = {"decision": "approved", "quantity": 5, "approver": "Eve"}


@pytest.fixture
def variance_records(known_records: Recorder, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Record a variance of bin d: 4 items are expected, and a script and Ben counted 5."""
    add_audit(known_records.engine, BUCKET, "d", 5, "Ben", blind=True)
    monkeypatch.setenv("BINWATCH_DATABASE_URL", known_records.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    return known_records


@pytest.fixture
def site(variance_records: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor with an approver token."""
    monkeypatch.setenv("BINWATCH_MONITOR_APPROVER_TOKEN", APPROVERS)
    with running_monitor() as running:
        yield running


def _form_headers(running: Running) -> dict[str, str]:
    return {"Origin": str(running.client.base_url).rstrip("/"), "Accept": HTML}


def _sign_in(running: Running, token: str, name: str) -> None:
    """Sign in as a user who has chosen to see the numbers."""
    running.client.cookies.clear()
    answer = running.client.post("/login", data={"token": token, "name": name}, headers=_form_headers(running))
    assert answer.status_code == 303
    running.client.cookies.set("binwatch_numbers", "show")


def _decide(running: Running, headers: dict[str, str], number: int = 1, **fields: object) -> httpx.Response:
    return running.client.post(f"/api/variances/{number}", json=fields, headers=headers)


def test_the_api_returns_approved_quantities(site: Running) -> None:
    decided = _decide(site, APPROVING, **APPROVED, note="as seen")
    assert (decided.status_code, decided.json()) == (
        200,
        {"id": 1, "bucket": BUCKET, "bin_id": "d", "state": "approved", "expected": 4, "quantity": 5},
    )
    (item,) = site.get("/api/lists/variances?state=approved").json()["items"]
    (row,) = csv.DictReader(
        io.StringIO(site.get("/api/lists/variances.csv?state=approved").content.decode("utf-8-sig"))
    )
    assert row == {
        name: str(value) if name in ("id", "expected", "quantity") else row[name] for name, value in item.items()
    }
    assert [row[name] for name in ("bin_id", "expected", "quantity", "closed_by", "note")] == [
        "d", "4", "5", "Eve", "as seen"
    ]  # fmt: skip
    assert row["closed_at"]
    assert site.get("/api/lists/variances?state=open").json()["items"] == []
    assert [
        one["bin_id"] for one in site.get("/api/discrepancies?variance=approved&direction=all").json()["items"]
    ] == ["d"]
    (variance,) = site.get("/api/bin?id=d").json()["variances"]
    assert [(step["step"], step["person"], step["quantity"]) for step in variance["trail"]] == [
        ("counted", None, 5), ("counted", "Ben", 5), ("approved", "Eve", 5)
    ]  # fmt: skip
    scraped = {dict(labels)["state"]: number for labels, number in site.metrics()["binwatch_variances"].items()}
    assert scraped == {"open": 0, "recounted": 0, "approved": 1, "rejected": 0, "superseded": 0}


@pytest.mark.parametrize(
    ("headers", "number", "fields", "status"),
    [
        ({}, 1, {}, 401),
        (BEARER, 1, {}, 403),
        (APPROVING, 1, {"approver": None}, 422),
        (APPROVING, 1, {"approver": "Ben"}, 403),  # counted the bin
        (APPROVING, 1, {"quantity": 4}, 409),
        (APPROVING, 1, {"decision": "rejected"}, 422),  # no note
        (APPROVING, 1, {"decision": "rejected", "note": "two\nlines"}, 422),
        (APPROVING, 99, {}, 404),
    ],
)
def test_invalid_decisions_are_refused(
    site: Running, headers: dict[str, str], number: int, fields: dict[str, object], status: int
) -> None:
    answer = _decide(site, headers, number, **(APPROVED | fields))
    assert answer.status_code == status
    assert answer.json()["detail"]
    assert [item["state"] for item in site.get("/api/lists/variances").json()["items"]] == ["recounted"]


def test_an_approver_decides_on_the_page_of_the_bin(site: Running) -> None:
    assert "1 to be approved" in Parsed(site.page("/discrepancies")).text
    _sign_in(site, TOKEN, "Ann")
    page = Parsed(site.page("/bin?id=d"))
    assert "sign in with the approvers' token" in page.text
    assert "Approve 5" not in page.text
    csrf = next(item["value"] for item in page.tags("input") if item.get("name") == "csrf")
    form = {"csrf": str(csrf), "decision": "approved", "quantity": "5", "back": "/bin?id=d"}
    assert site.client.post("/variances/1", data=form, headers=_form_headers(site)).status_code == 403
    _sign_in(site, APPROVERS, "Ben")
    assert "You have counted this bin" in Parsed(site.page("/bin?id=d")).text
    _sign_in(site, APPROVERS, "Eve")
    page = Parsed(site.page("/bin?id=d"))
    assert "Approve 5" in page.text
    form["csrf"] = str(next(item["value"] for item in page.tags("input") if item.get("name") == "csrf"))
    answers = [
        site.client.post("/variances/1", data=form | fields, headers=_form_headers(site)).headers["location"]
        for fields in ({"decision": "rejected"}, {"quantity": "6"}, {"csrf": "x"}, {"note": "as seen"}, {})
    ]
    assert answers == [
        "/bin?id=d&problem=decision", "/bin?id=d&problem=decided", "/bin?id=d&problem=foreign", "/bin?id=d",
        "/bin?id=d&problem=decided",
    ]  # fmt: skip
    assert "Eve approved 5 as seen" in Parsed(site.page("/bin?id=d")).text
    rows = Parsed(site.page("/lists/variances?state=approved")).rows
    assert [row[:4] for row in rows[1:]] == [["d", "approved", "4", "5"]]


@pytest.mark.parametrize(("groups", "status"), [("floor, approver", 200), ("floor", 403), ("approvers", 403)])
def test_a_proxy_names_approvers(
    variance_records: Recorder, monkeypatch: pytest.MonkeyPatch, groups: str, status: int
) -> None:
    monkeypatch.setenv("BINWATCH_MONITOR_USER_HEADER", "X-User")
    monkeypatch.setenv("BINWATCH_MONITOR_ROLE_HEADER", "X-Groups")
    with running_monitor() as running:
        headers = {"Origin": str(running.client.base_url).rstrip("/"), "X-User": "Eve", "X-Groups": groups}
        headers["Cookie"] = SIGHTED_COOKIE
        assert _decide(running, headers, **APPROVED).status_code == status
        # Approvers need their own token for sessions: with the auditors' token, any auditor could sign one.
        cookie = SessionCookies(TOKEN.encode()).create("Mallory", is_approver=True)
        session = {"Origin": headers["Origin"], "Cookie": f"{COOKIE}={cookie}; {SIGHTED_COOKIE}"}
        assert _decide(running, session, **APPROVED).status_code == 403


def test_a_proxy_s_users_need_a_role_and_scripts_behind_it_the_token(
    site: Running, variance_records: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINWATCH_MONITOR_USER_HEADER", "X-User")
    with running_monitor() as running:
        running.client.headers["X-User"] = "Eve"
        running.client.cookies.set("binwatch_numbers", "show")
        assert "BINWATCH_MONITOR_ROLE_HEADER" in Parsed(running.page("/bin?id=d")).text
        assert _decide(running, APPROVING, **APPROVED).status_code == 200
        monkeypatch.setenv("BINWATCH_MONITOR_ROLE_HEADER", "X-Groups")
    add_audit(variance_records.engine, BUCKET, "c", 2, "Dan", blind=True)
    with running_monitor() as running:
        running.client.headers["X-User"] = "Eve"
        running.client.cookies.set("binwatch_numbers", "show")
        assert "An approver decides." in Parsed(running.page("/bin?id=c")).text


def test_blind_auditors_cannot_decide(site: Running) -> None:
    """An error message would reveal the count."""
    _sign_in(site, APPROVERS, "Eve")
    site.client.cookies.delete("binwatch_numbers")
    form_headers = _form_headers(site)
    answers = [
        site.client.post("/variances/1", data={"decision": "approved", "quantity": "4"}, headers=form_headers),
        _decide(site, {"Origin": form_headers["Origin"]}, **(APPROVED | {"quantity": 4})),
    ]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert "Show the numbers" in answers[1].json()["detail"]


def test_a_recount_is_for_people_who_have_not_seen_the_numbers(records_engine: Engine) -> None:
    record_known(Recorder(records_engine))
    for name, blind in (("Dan", True), ("Ada", False)):
        add_audit(records_engine, BUCKET, "c", 2, name, blind=blind)
    queues = {}
    for name in ("Ada", "Dan", "Eve"):
        filters = waiting_for_audit(Filters(variance=VarianceState.OPEN), name)
        with records_engine.connect() as connection:
            queues[name] = [item.bin_id for item in read_queue(connection, filters, 0.05, 9)]
    assert (queues["Ada"], queues["Dan"], "c" in queues["Eve"]) == (["d"], ["d"], True)


def test_nobody_approves_without_a_configured_role(variance_records: Recorder) -> None:
    with running_monitor() as running:
        assert _decide(running, BEARER, **APPROVED).status_code == 403
        assert "BINWATCH_MONITOR_APPROVER_TOKEN" in Parsed(running.page("/bin?id=d")).text


def test_equal_tokens_for_auditors_and_approvers_are_an_error() -> None:
    with pytest.raises(SettingsError, match="choose another secret"):
        Authenticator(Settings(monitor_token=TOKEN, monitor_approver_token=TOKEN))


def test_variances_are_decided_from_the_command_line(variance_records: Recorder) -> None:
    for auditor, queue in (("Ada", ["c"]), ("Dan", [])):
        add_audit(variance_records.engine, BUCKET, "c", 2, "Dan", blind=True)
        bins = _invoke("audits", "queue", "--recount", "--auditor", auditor).splitlines()[1:]
        assert [line.split(",")[1] for line in bins] == queue
    assert _invoke("variances", "approve", "1", "5", "--approver", "Eve") == "Variance 1 of bin d is approved\n"
    assert "--note is empty" in _invoke("variances", "reject", "2", "--approver", "Eve", "--note", " ")
    assert _invoke("variances", "reject", "2", "--approver", "Eve", "--note", "moved") == (
        "Variance 2 of bin c is rejected\n"
    )
    assert "is rejected already" in _invoke("variances", "approve", "2", "2", "--approver", "Eve")
    rows = list(csv.DictReader(io.StringIO(_invoke("list", "variances", "--state", "rejected"))))
    assert [(row["bin_id"], row["note"]) for row in rows] == [("c", "moved")]
    assert "--state is for the list variances" in _invoke("list", "failed", "--state", "open")


def _invoke(*command: str) -> str:
    result = CliRunner().invoke(app, command)
    return result.stdout if result.exit_code == 0 and result.stdout else result.stderr or str(result.exception)
