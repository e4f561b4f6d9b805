"""Unexpected values for every query parameter are accepted or refused, and never cause a server error."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from sqlalchemy import Engine

from tests.monitor.conftest import Recorder, Running, record_known, running_monitor

TIMES = [
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999999Z", "0001-01-01", "9999-12-31",
    "2026-02-30", "2026-11-20T24:00:00Z", "2026-11-20T12:00:00", "1e300", "253402300800", "-62135596801",
]  # fmt: skip
NUMBERS = [
    "0", "-0", "-1", "1e-320", "1e-400", "1e309", "nan", "-inf", "1_0", "0x10", "١", "9223372036854775807",
    "9223372036854775808", "9" * 5000, "1.0", " 1 ", "true",
]  # fmt: skip
TEXTS = [
    "", " ", "\x00", "a/\x00b", "\ud800", "\U0010ffff", "%", "//", "..", "'", "\\", "é", "é" * 1000, "a" * 5000, "[]",
    "a\nb",
]  # fmt: skip


def _cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


CURSORS = [
    "a", "====", *map(_cursor, [
        "0 0 1", "0 0", "nan 0 1", "0 nan 1", "0 -inf 1", "0 0 nan", "0 0 1_0", "0 0 ١", "1e-400 1e-320 1",
        "2 1 9223372036854775808", "2 1 " + "9" * 90, "0  0 1", "2.0000000001 0 1", "\x00 0 1",
    ]),
]  # fmt: skip
VALUES = list(dict.fromkeys([*TIMES, *NUMBERS, *TEXTS, *CURSORS]))
TOKEN = "a token of some length"
PAGES = {
    "/": ["model", "span", "saved", "problem"],
    "/discrepancies": [
        "since", "until", "prefix", "direction", "size", "audited", "variance", "flagged", "level", "after", "before",
        "saved",
    ],
    "/bin": ["id", "bucket", "since", "until", "size", "level", "saved", "problem"],
    "/audit/bin": ["id", "bucket", "since", "until", "level", "saved", "problem"],
    "/audit": ["since", "until", "prefix", "size", "level"],
    "/drift": ["window"],
    "/models": [],
    "/slices": ["model"],
    "/login": ["next", "saved", "problem"],
    "/expected": ["saved", "problem"],
    "/lists/failed": ["prefix", "reason", "model", "after", "before"],
    "/lists/without-quantity": ["prefix", "after", "before"],
    "/lists/without-photo": ["prefix", "after", "before"],
    "/lists/variances": ["prefix", "state", "after", "before"],
}  # fmt: skip


@pytest.fixture(params=["postgres"])
def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor of known records, by default in PostgreSQL, which refuses more values."""
    engine: Engine = request.getfixturevalue(f"{request.param}_records")
    recorder = Recorder(engine)
    record_known(recorder)
    recorder.calibrate()
    recorder.pair("j", 1, 5)
    monkeypatch.setenv("BINWATCH_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    with running_monitor() as running:
        running.client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield running


def test_unexpected_values_cause_no_server_error(site: Running, caplog: pytest.LogCaptureFixture) -> None:
    addresses = [(path, name) for path, names in [*PAGES.items(), *_api(site).items()] for name in names]
    assert len(addresses) > 50
    with caplog.at_level(logging.ERROR):
        unexpected = {
            f"{path}?{name}={value[:60]!r}": answer
            for path, name in addresses
            for value in VALUES
            if (answer := _status(site, path, name, value)) not in (200, 303, 400, 404, 422)
        }
    assert unexpected == {}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def _status(site: Running, path: str, name: str, value: str) -> int:
    required = "" if path not in ("/bin", "/audit/bin", "/api/bin", "/api/audit") or name == "id" else "id=a&"
    query = f"{required}{name}={quote(value.encode(errors='surrogatepass'), safe='')}"
    return site.get(f"{path}?{query}").status_code


def _api(site: Running) -> dict[str, list[str]]:
    """Return path → query parameters from the monitor's OpenAPI description."""
    paths = site.get("/openapi.json").json()["paths"]
    return {
        path: [item["name"] for item in operations["get"].get("parameters", []) if item["in"] == "query"]
        for path, operations in paths.items()
        if "get" in operations
    }


@pytest.mark.parametrize("site", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize(
    ("query", "bins"),
    [
        ("since=0001-01-01T00:00:00%2B23:59", 4),
        ("until=0001-01-01T00:00:00%2B23:59", 0),
        ("since=9999-12-31T23:59:59-23:59", 0),
        ("until=9999-12-31T23:59:59-23:59", 4),
    ],
)
def test_a_time_outside_the_calendar_is_before_or_after_all_photos(site: Running, query: str, bins: int) -> None:
    answer = site.get(f"/api/discrepancies?{query}")
    assert (answer.status_code, len(answer.json()["items"])) == (200, bins)
