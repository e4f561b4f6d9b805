"""Upload of inventory files: permissions, the report page and limits."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import openpyxl
import pytest
from sqlalchemy import Engine, select

from binwatch.records.tables import Expectation
from monitor.access.bodies import MAX_BODY_BYTES
from monitor.access.uploads import MAX_FILE_BYTES
from monitor.pages.expected import _safe_file_name
from tests.monitor.conftest import BUCKET, HTML, Recorder, Running, running_monitor
from tests.monitor.html import Parsed
from tests.monitor.test_access import BEARER, TOKEN, _form_headers, _form_token, _sign_in


@pytest.fixture
def site(
    sqlite_records: Engine, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Running]:
    """Run a monitor that accepts uploads, with a photo of bin 00184 and temporary files in `tmp_path`."""
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    recorder.count("00184.jpg", 2, bucket=BUCKET)
    with running_monitor() as running:
        yield running


def _xlsx(*rows: tuple[object, ...]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(list(row))
    file = BytesIO()
    book.save(file)
    return file.getvalue()


def _quantities(records: Engine) -> dict[str, tuple[int | None, str]]:
    statement = select(Expectation.bin_id, Expectation.quantity, Expectation.source)
    with records.connect() as connection:
        return {row.bin_id: (row.quantity, row.source) for row in connection.execute(statement)}


def test_a_signed_in_user_may_upload_a_spreadsheet(site: Running, sqlite_records: Engine, tmp_path: Path) -> None:
    _sign_in(site)
    page = site.client.get("/expected", headers={"Accept": HTML})
    assert 'enctype="multipart/form-data"' in page.text
    data = _xlsx(("Bin ID", "Qty"), (184, 5), ("Z<b>9", 1), ("A", "many"))
    for done in ("2 bins recorded, 0 known", "0 bins recorded, 2 known"):
        answer = site.client.post(
            "/expected",
            data={"csrf": _form_token(site)},
            files={"file": (r"C:\stock\<i>März.xlsx", data)},
            headers=_form_headers(site),
        )
        assert answer.status_code == 200
        page_text = Parsed(answer.text).text
        assert "<i>März.xlsx: bin from 'Bin ID', quantity from 'Qty'" in page_text
        assert "3 rows: 1 matches a photo (1 of them with zeros restored that spreadsheets drop)" in page_text
        assert "1 does not ('Z<b>9'), 1 refused" in page_text
        assert "refused: 1 not a number" in page_text
        assert f"{done} from an earlier import" in page_text
        assert "4 A many not a number" in " ".join(page_text.split())
        assert str(tmp_path) not in answer.text
    source = "<i>März.xlsx"
    assert _quantities(sqlite_records) == {"00184": (5, source), "Z<b>9": (1, source)}
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_script_with_the_token_may_name_the_columns(site: Running, sqlite_records: Engine) -> None:
    answer = site.client.post(
        "/expected",
        data={"bin_column": "Kiste", "quantity_column": "Soll"},
        files={"file": ("stock.csv", "Kiste;Ist;Soll\n184;4;5\n".encode("cp1252"))},
        headers=BEARER,
    )
    assert answer.status_code == 200
    assert _quantities(sqlite_records) == {"00184": (5, "stock.csv")}


def test_an_unreadable_file_is_explained(site: Running, sqlite_records: Engine, tmp_path: Path) -> None:
    for name, data, message in (
        ("stock.csv", b"00184,5\n", "stock.csv: no column was recognised as the bin"),
        ("stock.xlsx", b"PK\x03\x04", "stock.xlsx: is not a readable XLSX or ODS file"),
    ):
        answer = site.client.post("/expected", files={"file": (name, data)}, headers=BEARER | {"Accept": HTML})
        assert answer.status_code == 422
        assert f"Nothing recorded: {message}" in Parsed(answer.text).text
        assert str(tmp_path) not in answer.text
    assert _quantities(sqlite_records) == {}


def test_uploads_by_others_are_refused(site: Running, sqlite_records: Engine) -> None:
    files = {"file": ("stock.csv", b"bin,qty\n00184,5\n")}
    assert "Sign in to upload" in site.page("/expected")
    assert site.client.post("/expected", files=files).status_code == 401
    answer = site.client.post("/expected", files=files, headers=_form_headers(site))
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?problem=signed_out&next=%2Fexpected")
    _sign_in(site)
    for fields, headers in (({}, _form_headers(site)), ({"csrf": _form_token(site)}, {"Origin": "http://elsewhere"})):
        answer = site.client.post("/expected", data=fields, files=files, headers=headers)
        assert answer.status_code == 403
    assert _quantities(sqlite_records) == {}


def test_upload_size_is_limited(site: Running) -> None:
    rows = b"bin,qty\n" + b"x" * MAX_BODY_BYTES
    assert site.client.post("/expected", files={"file": ("a.csv", rows)}).status_code == 413
    large = b"bin,qty\n" + b"\n" * (MAX_FILE_BYTES + MAX_BODY_BYTES)
    assert site.client.post("/expected", files={"file": ("a.csv", large)}, headers=BEARER).status_code == 413
    assert site.client.post("/expected", files={"file": ("a.csv", rows)}, headers=BEARER).status_code == 200
    assert site.client.post("/audits", content=rows, headers=BEARER).status_code == 413


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary=b"),
        (b"file=a", "application/x-www-form-urlencoded"),
    ],
)
def test_malformed_upload_forms_are_refused(site: Running, content: bytes, kind: str) -> None:
    answer = site.client.post("/expected", content=content, headers=BEARER | {"Content-Type": kind})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("sent", "plain"),
    [
        ("stock.xlsx", "stock.xlsx"),
        ("../../etc/passwd", "passwd"),
        (r"C:\a\b.csv", "b.csv"),
        ("..", "upload"),
        ("", "upload"),
        ("a\0b\n.csv", "ab.csv"),
        ("ä" * 300 + ".csv", "ä" * 56 + ".csv"),
    ],
)
def test_uploaded_file_names_are_sanitised(sent: str, plain: str) -> None:
    assert _safe_file_name(sent) == plain
