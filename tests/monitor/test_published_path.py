"""A monitor behind a reverse proxy under a path: all links, forms, photos and redirects stay under it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from starlette.requests import HTTPConnection

from binwatch.errors import SettingsError
from binwatch.settings import Settings
from monitor.access.authentication import COOKIE
from monitor.access.proxies import PublishedPath, TrustedProxies, relative_path, root_path_of
from testing.services.nginx import nginx
from testing.services.s3 import S3
from tests.monitor.conftest import HTML, Recorder, Running, jpeg, record_known, running_monitor
from tests.monitor.drifting import BUCKET
from tests.monitor.html import Parsed

TOKEN = "a token of some length"
DOC = Path(__file__).parents[2] / "docs" / "discrepancies.md"
PREFIX = "/binwatch"


@pytest.fixture
def known_photos(recorder: Recorder, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure a monitor that accepts audits, with records whose newest photo is in the bucket."""
    record_known(recorder)
    recorder.calibrate()
    s3.client.put_object(Bucket=s3.bucket, Key="shown.jpg", Body=jpeg())
    etag = s3.client.head_object(Bucket=s3.bucket, Key="shown.jpg")["ETag"].strip('"')
    recorder.count("shown.jpg", 1, etag=etag, bucket=s3.bucket)
    monkeypatch.setenv("BINWATCH_DATABASE_URL", recorder.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)


@pytest.fixture(params=["nginx, as documented", "a proxy that says the path", "a proxy that keeps the path"])
def published(
    request: pytest.FixtureRequest, known_photos: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    """Return a client of the proxy with a browser's headers."""
    keeps = request.param.endswith("keeps the path")
    if keeps:
        monkeypatch.setenv("BINWATCH_MONITOR_ROOT_PATH", PREFIX + "/")
    with running_monitor() as running:
        if request.param.startswith("nginx"):
            proxy = nginx(tmp_path, _documented(running))
        else:
            proxy = _proxy(running, {} if keeps else {"X-Forwarded-Prefix": PREFIX}, keeps=keeps)
        with proxy as url, httpx.Client(base_url=url, headers={"Accept": HTML}, timeout=30) as client:
            yield client


def _documented(running: Running) -> str:
    (block,) = re.findall(r"```nginx\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert "http://127.0.0.1:8000/" in block
    return str(block).replace("http://127.0.0.1:8000/", str(running.client.base_url))


@contextmanager
def _proxy(running: Running, more: dict[str, str], *, keeps: bool) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            path = self.path if keeps else self.path.removeprefix(PREFIX)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"} | more
            answer = running.client.request(self.command, path, headers=headers, content=body)
            self.send_response(answer.status_code)
            for name, value in answer.headers.multi_items():
                if name not in ("transfer-encoding", "content-length", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _addresses(page: str) -> set[str]:
    """Return the addresses that a browser would load, follow or send forms to."""
    result = {attributes.get(name) for _, attributes in Parsed(page).elements for name in ("href", "src", "action")}
    return {address for address in result if address and not address.startswith("#")}


def _post(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return client.post(PREFIX + path, data=fields, headers={"Origin": str(client.base_url).rstrip("/")})


def test_all_links_of_pages_resolve(published: httpx.Client) -> None:
    assert _post(published, "/login", token=TOKEN, name="Ada", next="/").status_code == 303
    csrf = next(
        item["value"] for item in Parsed(published.get(f"{PREFIX}/").text).tags("input") if item["name"] == "csrf"
    )
    assert _post(published, "/sight", csrf=csrf or "", numbers="show").headers["location"] == f"{PREFIX}/discrepancies"
    statuses: dict[str, int] = {}
    to_see = [f"{PREFIX}/", f"{PREFIX}/drift", f"{PREFIX}/no-such-page", f"{PREFIX}/static/none.css"]
    while to_see:
        address = to_see.pop()
        if address in statuses:
            continue
        answer = published.get(address)
        statuses[address] = answer.status_code
        if answer.is_redirect:
            to_see.append(answer.headers["location"])
        elif answer.headers["content-type"].startswith("text/html"):
            to_see += [urljoin(address, link) for link in _addresses(answer.text)]
    assert [address for address in statuses if not address.startswith(f"{PREFIX}/")] == []
    wrong = {address.removeprefix(PREFIX): status for address, status in statuses.items() if status not in (200, 303)}
    assert {address: status for address, status in wrong.items() if "/photos/" not in address} == {
        "/no-such-page": 404,
        "/static/none.css": 404,
        "/bin": 422,  # target of the form that finds a bin
        "/bin?bucket=bins&id=i": 404,  # only missing photos
        "/logout": 405,
        "/sight": 405,
    }
    paths = {urlsplit(address).path.removeprefix(PREFIX) for address in statuses}
    assert {"/bin", "/static/keys.js", "/api/discrepancies.csv", "/openapi.json", "/metrics"} <= paths
    assert 200 in [status for address, status in statuses.items() if "/photos/" in address]


def test_signing_in_auditing_and_signing_out(published: httpx.Client) -> None:
    page = published.get(f"{PREFIX}/bin?id=b").text
    (onwards,) = (address for address in _addresses(page) if "/login?next=%2Fdiscrepancies" in address)
    (field,) = (item for item in Parsed(published.get(onwards).text).tags("input") if item.get("name") == "next")
    answer = _post(published, "/login", token=TOKEN, name="Ada", next=field["value"] or "")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PREFIX}/discrepancies")
    assert f"; path={PREFIX};" in answer.headers["set-cookie"].lower()
    view = published.get(published.get(f"{PREFIX}/bin?id=b").headers["location"]).text
    assert [address for address in _addresses(view) if not address.startswith(f"{PREFIX}/")] == []
    fields = {item["name"]: item.get("value") or "" for item in Parsed(view).tags("input")}
    saved = _post(
        published,
        "/audits",
        **{name: fields[name] for name in ("bin", "bucket", "photo", "view", "csrf", "back")},
        quantity="3",
    )
    assert saved.status_code == 303
    assert saved.headers["location"].startswith(f"{PREFIX}/audit/bin?")
    assert "saved=" in saved.headers["location"]
    ended = _post(published, "/logout", csrf=fields["csrf"])
    assert ended.headers["location"] == f"{PREFIX}/"
    assert COOKIE not in published.cookies


def test_navigation_to_the_worst_bin(published: httpx.Client) -> None:
    assert published.get(f"{PREFIX}/audit").headers["location"] == f"{PREFIX}/login?next=%2Faudit"
    assert _post(published, "/login", token=TOKEN, name="Ada").status_code == 303
    assert published.get(f"{PREFIX}/audit").headers["location"] == f"{PREFIX}/audit/bin?bucket=bins&id=f"


def test_a_redundant_slash_redirects_without_host_or_scheme(published: httpx.Client) -> None:
    for path, query in {"/discrepancies": "?size=2", "/bin": "?id=a%26b", "/api/models": ""}.items():
        answer = published.get(f"{PREFIX}{path}/{query}")
        assert (answer.status_code, answer.headers["location"]) == (307, f"{PREFIX}{path}{query}")
    for path in ("/nothing/", "/static/"):
        assert published.get(PREFIX + path).status_code == 404
    assert published.get(PREFIX).status_code in (200, 301)  # nginx itself redirects to the folder


def test_the_api_description_names_its_path(published: httpx.Client) -> None:
    for _ in range(2):
        assert published.get(f"{PREFIX}/openapi.json").json()["servers"] == [{"url": PREFIX}]
    assert published.get(f"{PREFIX}/api/bin?id=nothing").headers["content-type"] == "application/problem+json"
    assert published.get(f"{PREFIX}/static/monitor.css").headers["cache-control"] == "no-cache"


def test_forwarded_headers_are_ignored_without_a_proxy(known_photos: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_MONITOR_PROXIES", "10.0.0.0/8")
    with running_monitor() as running:
        page = running.get("/", **{"Accept": HTML, "X-Forwarded-Prefix": "/elsewhere"})
        assert page.status_code == 200
        assert "elsewhere" not in page.text
        assert running.get("/discrepancies/").headers["location"] == "/discrepancies"
        for path in ("//evil.example/", "//discrepancies/", "/\\evil.example/"):
            assert running.get(f"{running.client.base_url}".rstrip("/") + path).status_code == 404


@pytest.mark.parametrize(
    ("prefix", "root"),
    [
        ("/binwatch", "/binwatch"), ("/binwatch/", "/binwatch"), (" /a/b-c_d.e~f ", "/a/b-c_d.e~f"), ("/..a", "/..a"),
        ("", ""), ("/", ""), ("//evil.example", ""), ("https://evil.example", ""), ("/a//b", ""), ("/a/../b", ""),
        ("/..", ""), ("/a b", ""), ("/a\"onload=", ""), ("/a?b", ""), ("/a, /b", ""), ("binwatch", ""), ("/\\evil", ""),
        ("/é", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/discrepancies", "/binwatch-other"])
def test_only_plain_forwarded_prefixes_are_accepted(prefix: str, root: str, path: str) -> None:
    assert _resolved_path(Settings(), path, [(b"x-forwarded-prefix", prefix.encode("latin-1"))]) == (root, path)


def test_repeated_forwarded_prefixes_are_ignored() -> None:
    assert _resolved_path(Settings(), "/x", [(b"x-forwarded-prefix", b"/a"), (b"x-forwarded-prefix", b"/b")]) == (
        "",
        "/x",
    )


@pytest.mark.parametrize("path", ["/binwatch", "/binwatch/", "/"])
def test_the_root_path_is_the_overview(path: str) -> None:
    assert _resolved_path(Settings(monitor_root_path="/binwatch"), path, []) == ("/binwatch", "/")


@pytest.mark.parametrize("path", ["binwatch", "//binwatch", "/a b", "https://a/b", "/../b"])
def test_an_invalid_published_path_is_an_error(path: str) -> None:
    with pytest.raises(SettingsError, match=r"BINWATCH_MONITOR_ROOT_PATH: .* write one like /binwatch"):
        _resolved_path(Settings(monitor_root_path=path), "/", [])


def _resolved_path(settings: Settings, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[str, str]:
    """Return root path and relative path as seen by the app."""
    resolved: list[tuple[str, str]] = []

    async def app(scope: object, receive: object, send: object) -> None:
        connection = HTTPConnection(scope)  # type: ignore[arg-type]
        resolved.append((root_path_of(connection), relative_path(connection)))

    scope = {"type": "http", "path": path, "headers": headers, "client": ("127.0.0.1", 1)}
    run = PublishedPath(app, settings, TrustedProxies(settings))(scope, None, None)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        run.send(None)
    return resolved[0]
