"""Access control: host names, body limits, tokens, sessions, forms and proxies."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from binwatch.errors import SettingsError
from binwatch.settings import Settings
from monitor.access import sessions
from monitor.access.authentication import COOKIE, Authenticator
from monitor.access.bodies import MAX_BODY_BYTES
from monitor.access.hosts import parse_host
from monitor.access.sessions import SessionCookies
from monitor.forms import local_path
from tests.monitor.conftest import HTML, Recorder, Running, running_monitor
from tests.monitor.drifting import BUCKET
from tests.monitor.html import Parsed

TOKEN = "a token of some length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def site(monitor_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor that accepts audits."""
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    with running_monitor() as running:
        yield running


@pytest.fixture
def monitor_environment(sqlite_records: Engine, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure records with one bin, whose photo has count id 1, and no object store."""
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    recorder.pair("a", predicted=2, expected=3)


def _form_headers(running: Running) -> dict[str, str]:
    """Return the headers of a browser that submits a form of this monitor."""
    return {"Origin": str(running.client.base_url).rstrip("/"), "Accept": HTML}


def _sign_in(running: Running, **fields: str) -> httpx.Response:
    return running.client.post("/login", data={"token": TOKEN, "name": "Ada"} | fields, headers=_form_headers(running))


def _form_token(running: Running) -> str:
    """Return the CSRF token that pages put into their forms."""
    sessions = SessionCookies(TOKEN.encode())
    session = sessions.read(running.client.cookies.get(COOKIE))
    assert session is not None
    return sessions.form_token(f"session:{session.id}")


def _audits(running: Running) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = running.get("/api/audits", **BEARER).json()[
        "items"
    ]  # signed-in users audit blind and may not read this
    return items


# Host names


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8000", 200),
        ("LOCALHOST.", 200),
        ("[::1]:8000", 200),
        ("192.168.7.20:8000", 200),
        ("monitor:8000", 200),
        ("bins.example", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("evil.example:127", 421),
        ("127.0.0.1@evil.example", 400),
        ("", 400),
        ("a b", 400),
        ("localhost:x", 400),
        ("localhost:99999", 400),
    ],
)
def test_only_allowed_host_names_are_answered(
    monitor_environment: None, monkeypatch: pytest.MonkeyPatch, host: str, status: int
) -> None:
    monkeypatch.setenv("BINWATCH_MONITOR_HOSTS", "monitor, Bins.example")
    with running_monitor() as running:
        answer = running.get("/healthz", Host=host)
    assert answer.status_code == status
    if status == 421:
        assert "BINWATCH_MONITOR_HOSTS" in answer.json()["detail"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_request_with_two_host_headers_is_refused(monitor: Running) -> None:
    url = monitor.client.base_url
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert b" 400 " in connection.recv(4096).splitlines()[0]


@pytest.mark.parametrize(
    ("header", "name"),
    [("A.Example:80", "a.example"), ("[::1]", "[::1]"), ("[::1]:8", "[::1]"), ("x/y", None), (":80", None)],
)
def test_host_name_is_parsed_from_the_host_header(header: str, name: str | None) -> None:
    assert parse_host(header) == name


# Bodies


def test_a_large_body_is_refused_before_it_is_read(site: Running) -> None:
    answer = site.client.post("/api/audits", content=b"x" * (MAX_BODY_BYTES + 1), headers=BEARER)
    assert (answer.status_code, answer.json()["detail"][:20]) == (413, "the body is over the")


def test_a_large_body_without_a_length_is_refused(site: Running) -> None:
    chunks = (b"x" * 1_000 for _ in range(100))
    try:
        status = site.client.post("/audits", content=chunks, headers=BEARER).status_code
    except httpx.WriteError:  # the server closed the connection before the whole body was sent
        return
    assert status == 413


def test_a_body_of_exactly_the_limit_is_read(site: Running) -> None:
    answer = site.client.post("/api/audits", content=b" " * MAX_BODY_BYTES, headers=BEARER)
    assert answer.status_code == 422


# Writing with the token


def test_writing_is_disabled_without_a_configured_token(monitor_environment: None) -> None:
    with running_monitor() as running:
        answer = running.client.post("/api/audits", json={"bin": "a", "quantity": 3}, headers=BEARER)
        assert (answer.status_code, "BINWATCH_MONITOR_TOKEN" in answer.json()["detail"]) == (403, True)
        answer = _sign_in(running)
        assert (answer.status_code, "Entering counts is off" in answer.text) == (403, True)
        assert _audits(running) == []


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}])
def test_writing_needs_the_token(site: Running, header: dict[str, str]) -> None:
    answer = site.client.post("/api/audits", json={"bin": "a", "quantity": 3}, headers=header)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert _audits(site) == []


def test_a_script_may_write_with_the_token(site: Running) -> None:
    body = {"bin": "a", "quantity": 4, "photo": 1, "auditor": "Ada"}
    saved = site.client.post("/api/audits", json=body, headers=BEARER)
    assert saved.status_code == 201
    audit = saved.json()
    assert (audit["bucket"], audit["auditor"], audit["predicted"], audit["expected"]) == (BUCKET, "Ada", 2, 3)
    assert (audit["of_count"], audit["of_inventory"], audit["is_new"]) == ("under", "under", True)
    repeated = site.client.post("/api/audits", json=body, headers=BEARER)
    assert (repeated.status_code, repeated.json()["id"], repeated.json()["is_new"]) == (200, audit["id"], False)
    assert len(_audits(site)) == 1
    assert site.metric("binwatch_sighted_audited_counts", model="model-1", audited="4", outcome="under") == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"bin": "a", "quantity": 3, "photo": 2}, 409),
        ({"bin": "nowhere", "quantity": 3}, 404),
        ({"bin": "a", "quantity": -1}, 422),
        ({"bin": "a", "quantity": 1_000_001}, 422),
        ({"bin": "a", "quantity": "3"}, 422),
        ({"bin": "a", "quantity": True}, 422),
        ({"bin": "a", "quantity": 3, "auditor": "a\nb"}, 422),
        ({"bin": "a", "quantity": 3, "auditor": "x" * 101}, 422),
        ({"bin": "a", "quantity": 3, "photo": 2**63}, 422),
        ({"bin": "", "quantity": 3}, 422),
        ({"bin": "a", "quantity": 3, "more": 1}, 422),
        ({"bin": "../../etc/passwd", "quantity": 3}, 404),
    ],
)
def test_invalid_audits_are_refused(site: Running, body: dict[str, object], status: int) -> None:
    answer = site.client.post("/api/audits", json=body, headers=BEARER)
    assert answer.status_code == status, answer.text
    assert _audits(site) == []


def test_cross_site_requests_are_refused_even_with_the_token(site: Running) -> None:
    for header in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        answer = site.client.post("/api/audits", json={"bin": "a", "quantity": 3}, headers=BEARER | header)
        assert answer.status_code == 403
    assert _audits(site) == []


# Forms


def test_a_person_signs_in_and_saves_an_audit(site: Running) -> None:
    signed_in = _sign_in(site, next="/bin?id=a")
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/bin?id=a")
    cookie = signed_in.headers["set-cookie"]
    assert all(attribute in cookie for attribute in ("HttpOnly", "SameSite=lax", "Path=/"))
    assert TOKEN not in cookie
    fields = {"bin": "a", "quantity": "3", "photo": "1", "auditor": "Mallory", "csrf": _form_token(site)}
    saved = site.client.post("/audits", data=fields | {"next": "/bin?id=b&saved=9"}, headers=_form_headers(site))
    assert (saved.status_code, saved.headers["location"]) == (303, "/bin?id=b&saved=1")
    (audit,) = _audits(site)
    assert (audit["bin"], audit["quantity"], audit["auditor"]) == ("a", 3, "Ada")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"quantity": "many"}, "quantity"),
        ({"quantity": "-1"}, "quantity"),
        ({"quantity": ""}, "quantity"),
        ({"quantity": "9" * 5000}, "quantity"),
        ({"photo": "7"}, "stale"),
        ({"bin": "<script>"}, "unknown_bin"),
        ({"csrf": "wrong"}, "foreign"),
        ({"csrf": "ü"}, "foreign"),
    ],
)
def test_an_invalid_form_redirects_back_with_the_problem(site: Running, changed: dict[str, str], problem: str) -> None:
    _sign_in(site)
    fields = {"bin": "a", "quantity": "3", "photo": "1", "csrf": _form_token(site), "back": "/bin?id=a&problem=x"}
    answer = site.client.post("/audits", data=fields | changed, headers=_form_headers(site))
    assert (answer.status_code, answer.headers["location"]) == (303, f"/bin?id=a&problem={problem}")
    assert _audits(site) == []


def test_cross_site_forms_are_refused(site: Running) -> None:
    _sign_in(site)
    fields = {"bin": "a", "quantity": "3", "csrf": _form_token(site), "back": "/"}
    cross_site_headers: list[dict[str, str]] = [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
        {"Sec-Fetch-Site": "same-site"},
    ]
    for headers in cross_site_headers:
        answer = site.client.post("/audits", data=fields, headers=_form_headers(site) | {"Origin": ""} | headers)
        assert (answer.status_code, "another web site sent it" in answer.text) == (403, True)
    assert _audits(site) == []


def test_signed_out_users_are_asked_to_sign_in(site: Running) -> None:
    fields = {"bin": "a", "quantity": "3", "back": "/bin?id=a"}
    answer = site.client.post("/audits", data=fields, headers=_form_headers(site))
    assert answer.headers["location"] == "/login?problem=signed_out&next=%2Fbin%3Fid%3Da"


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"token": "wrong", "name": "Ada <b>"}, 401, "That is not the token."),
        ({"name": "a\x1bb"}, 422, "Enter your name"),
        ({"name": " "}, 422, "Enter your name"),
        ({"name": "x" * 101}, 422, "Enter your name"),
    ],
)
def test_failed_sign_in_keeps_the_entered_name(site: Running, fields: dict[str, str], status: int, says: str) -> None:
    answer = _sign_in(site, next="/models", **fields)
    page = Parsed(answer.text)
    assert (answer.status_code, says in page.text) == (status, True)
    assert "set-cookie" not in answer.headers
    sent = {field["name"]: field.get("value") for field in page.tags("input")}
    assert sent == {"next": "/models", "name": fields["name"][:100], "token": None}


def test_a_long_non_latin_name_can_sign_in(site: Running) -> None:
    name = "\N{JAPANESE OGRE}" * 100
    assert _sign_in(site, name=name).status_code == 303
    assert name in site.page("/")


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("path", "fields", "headers", "status", "says"),
    [
        ("/audits", {}, {}, 401, "needs the token"),
        ("/audits", {"bin": "a", "quantity": "many"}, BEARER, 422, "quantity: Input should be a valid integer"),
        ("/audits", {"bin": "a", "quantity": "3", "photo": "7"}, BEARER, 409, "another photo"),
        ("/audits", {"bin": "nowhere", "quantity": "3"}, BEARER, 404, "'nowhere'"),
        ("/audits", {}, BEARER | {"Origin": "https://evil.example"}, 403, "another web site"),
        ("/login", {"token": TOKEN, "name": "Ada"}, {}, 403, "another web site"),
        ("/login", {"token": "wrong", "name": "Ada"}, {"Sec-Fetch-Site": "none"}, 401, "not the token"),
        ("/login", {"token": TOKEN, "name": ""}, {"Sec-Fetch-Site": "none"}, 422, "1 to 100 characters"),
    ],
)
def test_requests_that_come_from_no_page_get_an_error_status(
    site: Running, path: str, fields: dict[str, str], headers: dict[str, str], status: int, says: str
) -> None:
    answer = site.client.post(path, data=fields, headers=FORM | headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert (problem["type"], problem["status"], says in problem["detail"]) == ("about:blank", status, True), problem
    assert _audits(site) == []
    page = site.client.post(path, data=fields, headers=FORM | {"Accept": HTML} | headers)
    assert page.status_code == status
    assert page.headers["content-type"].startswith("text/html")


def test_signing_out_ends_the_session(site: Running) -> None:
    _sign_in(site)
    foreign = site.client.post("/logout", data={"csrf": "wrong"}, headers=_form_headers(site))
    assert foreign.status_code == 403
    assert site.client.cookies.get(COOKIE)
    site.client.post("/logout", data={"csrf": _form_token(site)}, headers=_form_headers(site))
    assert site.client.cookies.get(COOKIE) is None


@pytest.mark.parametrize(
    ("kind", "status"), [("text/plain", 415), ("multipart/form-data; boundary=x", 415), ("application/json", 415)]
)
def test_other_form_encodings_are_refused(site: Running, kind: str, status: int) -> None:
    answer = site.client.post("/audits", content=b"bin=a", headers=_form_headers(site) | {"Content-Type": kind})
    assert answer.status_code == status


@pytest.mark.parametrize("content", [b"\xff", b"a=%ff", b"&".join(b"a=1" for _ in range(50))])
def test_malformed_forms_are_refused(site: Running, content: bytes) -> None:
    headers = _form_headers(site) | {"Content-Type": "application/x-www-form-urlencoded"}
    assert site.client.post("/audits", content=content, headers=headers).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "evil",
        "/a\r\nSet-Cookie: x=y",
        "/a\tb",
        "/ü",
        "/" + "a" * 5000,
        "",
        None,
    ],
)
def test_redirects_to_other_sites_are_refused(path: str | None) -> None:
    assert local_path(path, "/otherwise") == "/otherwise"


@pytest.mark.parametrize("path", ["/", "/bin?id=a%2Fb&x=https://y", "/discrepancies?prefix=%2F%2F#top"])
def test_redirects_to_local_pages_are_followed(path: str) -> None:
    assert local_path(path, "/otherwise") == path


# Sessions


def test_only_sessions_signed_with_the_token_are_valid() -> None:
    cookies = SessionCookies(b"secret")
    cookie = cookies.create("Ada")
    session = cookies.read(cookie)
    assert session is not None
    assert session.name == "Ada"
    payload, _, signature = cookie.partition(".")
    for changed in (f"{payload}x.{signature}", f"{payload}.{signature}x", payload, "", None, "ü", "x" * 5000, "."):
        assert cookies.read(changed) is None
    assert SessionCookies(b"another").read(cookie) is None


def test_a_session_expires_after_a_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    cookies = SessionCookies(b"secret")
    cookie = cookies.create("Ada")

    class Later:
        @staticmethod
        def now(zone: object) -> datetime:
            return datetime.now(UTC) + sessions.LIFETIME + timedelta(seconds=1)

    assert cookies.read(cookie) is not None
    monkeypatch.setattr(sessions, "datetime", Later)
    assert cookies.read(cookie) is None


def test_form_tokens_differ_by_session_and_secret() -> None:
    tokens = {SessionCookies(secret).form_token(holder) for secret in (b"a", b"b") for holder in ("x", "y")}
    assert len(tokens) == 4


# Proxies


@pytest.mark.parametrize(
    ("proxies", "header", "status"),
    [
        ("127.0.0.0/8", {"X-User": "Ada"}, 201),
        ("127.0.0.0/8", {"X-User": ""}, 401),
        ("127.0.0.0/8", {"X-User": "a\tb"}, 401),
        ("127.0.0.0/8", {"X-Other": "Ada"}, 401),
        ("10.0.0.0/8", {"X-User": "Ada"}, 401),
    ],
)
def test_a_user_named_by_a_trusted_proxy_may_write(
    monitor_environment: None, monkeypatch: pytest.MonkeyPatch, proxies: str, header: dict[str, str], status: int
) -> None:
    monkeypatch.setenv("BINWATCH_MONITOR_USER_HEADER", "X-User")
    monkeypatch.setenv("BINWATCH_MONITOR_PROXIES", proxies)
    with running_monitor() as running:
        body = {"bin": "a", "quantity": 3, "auditor": "Mallory"}
        answer = running.client.post("/api/audits", json=body, headers=_form_headers(running) | header)
        assert answer.status_code == status
        if status == 201:
            assert answer.json()["auditor"] == "Ada"
            foreign = running.client.post("/api/audits", json=body, headers=header)
            assert foreign.status_code == 403, "a proxy names its users even if another site causes the request"


def test_user_headers_are_ignored_by_default(site: Running) -> None:
    headers = _form_headers(site) | {"X-User": "Ada", "X-Forwarded-User": "Ada", "Remote-User": "Ada"}
    assert site.client.post("/api/audits", json={"bin": "a", "quantity": 3}, headers=headers).status_code == 401


def test_invalid_proxy_addresses_are_an_error() -> None:
    with pytest.raises(SettingsError, match=r"BINWATCH_MONITOR_PROXIES: .*10\.0\.0\.0/8"):
        Authenticator(Settings(monitor_proxies="proxy.example"))
