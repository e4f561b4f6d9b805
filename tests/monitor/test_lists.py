"""The lists behind the overview's numbers: on pages, in the API, as files and on the command line."""

from __future__ import annotations

import csv
import io
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook
from sqlalchemy import Engine, event

from binwatch.__main__ import main
from binwatch.errors import Reason
from binwatch.records.store import NewExpectation, Store
from binwatch.records.variances import VarianceState
from binwatch.text import count_noun
from monitor.files import LIST_TERMINAL_COLUMNS
from monitor.views.lists import LISTS, FailedFilters, ListFilters, ListName, VarianceFilters, read_list
from tests.monitor.conftest import Recorder, Running
from tests.monitor.drifting import BUCKET, DAY, MODEL
from tests.monitor.html import Parsed

BINS_BY_LIST = {
    ListName.FAILED: {"h", "i"},
    ListName.WITHOUT_QUANTITY: {"g", "h"},
    ListName.WITHOUT_PHOTO: {"y"},
    ListName.VARIANCES: {"d"},
}
"""Bins of the known records by list."""


@pytest.mark.parametrize("name", ListName)
def test_overview_numbers_equal_the_list_lengths(monitor: Running, known_records: Recorder, name: ListName) -> None:
    items = monitor.get(f"/api/lists/{name}").json()["items"]
    assert {item["bin_id"] for item in items} == BINS_BY_LIST[name]
    backlog = monitor.get("/api/overview").json()["backlog"]
    number = {
        ListName.FAILED: "failed_photos",
        ListName.WITHOUT_QUANTITY: "photo_without_quantity",
        ListName.WITHOUT_PHOTO: "quantity_without_photo",
        ListName.VARIANCES: "variances",
    }
    assert backlog[number[name]] == len(BINS_BY_LIST[name])
    links = {link["href"]: link for link in Parsed(monitor.page("/")).tags("a")}
    assert f"/lists/{name}" in links
    page = Parsed(monitor.page(f"/lists/{name}"))
    assert {link["href"] for link in page.tags("a") if str(link["href"]).startswith("/bin?")} == {
        f"/bin?bucket={BUCKET}&id={bin_id}" for bin_id in BINS_BY_LIST[name]
    }


def test_contents_of_list_rows(monitor: Running, known_records: Recorder) -> None:
    # Another photo of bin i, which has no quantity.
    known_records.count("bin-images/i.jpg", 2, at=DAY + timedelta(days=1))
    newest, oldest = monitor.get("/api/lists/failed").json()["items"]
    assert (newest["key"], newest["reason"], newest["detail"]) == ("bin-images/i.jpg", "missing", "not there")
    assert (newest["latest"], oldest["latest"]) == (False, True)
    assert oldest["remedy"] == "copy the file again, or take the photo again"
    unmatched = {item["bin_id"]: item for item in monitor.get("/api/lists/without-quantity").json()["items"]}
    assert (unmatched["g"]["count"], unmatched["g"]["quantity_reason"]) == ("4", "not_json")
    assert unmatched["g"]["quantity_file"] == "metadata/g.json"
    assert (unmatched["h"]["count"], unmatched["h"]["reason"]) == (None, "truncated")
    assert (unmatched["i"]["count"], unmatched["i"]["quantity_file"]) == ("2", None)
    (without,) = monitor.get("/api/lists/without-photo").json()["items"]
    assert (without["bin_id"], without["expected"], without["source"]) == ("y", 3, "metadata/y.json")


def test_a_photo_that_is_counted_later_leaves_the_list(monitor: Running, recorder: Recorder) -> None:
    recorder.count("bin-images/a.jpg", reason=Reason.MISSING, etag="one")
    assert len(monitor.get("/api/lists/failed").json()["items"]) == 1
    recorder.count("bin-images/a.jpg", 3, etag="one")
    assert monitor.get("/api/lists/failed").json()["items"] == []
    assert "None." in Parsed(monitor.page("/lists/failed")).text


def test_articles_are_listed(monitor: Running, sqlite_records: Engine) -> None:
    contents = [{"sku": "B00", "name": "socks", "quantity": 2}, {"sku": "B01", "name": "tea", "quantity": 1}]
    expectation = NewExpectation(
        bucket=BUCKET, bin_id="y", source="stock.xlsx", etag="e", modified_at=DAY, quantity=3, contents=contents
    )
    Store(sqlite_records).add_expectations([expectation])
    (row,) = monitor.get("/api/lists/without-photo").json()["items"]
    assert row["articles"] == "2 × B00 socks; 1 × B01 tea"
    assert "2 × B00 socks" in Parsed(monitor.page("/lists/without-photo")).text


@pytest.mark.parametrize(
    ("query", "bins"),
    [
        ("failed?reason=truncated", ["h"]),
        ("failed?reason=corrupt", []),
        (f"failed?model={MODEL}", ["i", "h"]),
        ("failed?model=other", []),
        ("failed?prefix=h", ["h"]),
        ("failed?prefix=H", []),
        ("failed?prefix=bin-images/i", ["i"]),
        ("without-quantity?prefix=h", ["h"]),
        ("without-quantity?prefix=bin-images/g", ["g"]),
        ("without-photo?prefix=x", []),
        ("without-photo?prefix=%25", []),
        ("without-photo?prefix=%00", []),
    ],
)
def test_filters(monitor: Running, known_records: Recorder, query: str, bins: list[str]) -> None:
    assert [item["bin_id"] for item in monitor.get(f"/api/lists/{query}").json()["items"]] == bins
    page = Parsed(monitor.page(f"/lists/{query}"))
    links = [str(link["href"]) for link in page.tags("a")]
    assert [link.split("id=")[1] for link in links if link.startswith("/bin?")] == bins


def test_lists_are_paged_forwards_and_backwards(monitor: Running, recorder: Recorder) -> None:
    for number in range(120):
        recorder.count(f"bin-images/{number:03}.jpg", reason=Reason.CORRUPT)
        recorder.expect(f"ä {number:03}", 2)
    for name, expected in (
        ("failed", [f"{number:03}" for number in reversed(range(120))]),
        ("without-quantity", [f"{number:03}" for number in range(120)]),
        ("without-photo", [f"ä {number:03}" for number in range(120)]),
    ):
        bins, address = [], f"/lists/{name}"
        while address:
            page = Parsed(monitor.page(address))
            bins += [row[0] for row in page.rows[1:]]
            address = next((str(link["href"]) for link in page.tags("a") if link.get("rel") == "next"), "")
        assert bins == expected
        first = _page(monitor, name)
        rest = _page(monitor, name, after=first["next"])
        assert [item["bin_id"] for item in rest["items"]] == expected[100:]
        assert _page(monitor, name, before=rest["previous"]) == first | {"previous": None}


def _page(monitor: Running, name: str, **cursor: str) -> dict[str, Any]:
    answer = monitor.client.get(f"/api/lists/{name}", params={"limit": "100"} | cursor)
    assert answer.status_code == 200
    return answer.json()


@pytest.mark.parametrize("cursor", ["x", "W10", "WzBd", "WyJhIl0", "Wy0xXQ", "WzFlOTld", "ü", "bnVsbA"])
@pytest.mark.parametrize("name", ListName)
def test_an_invalid_cursor_is_refused(monitor: Running, cursor: str, name: ListName) -> None:
    answer = monitor.client.get(f"/api/lists/{name}", params={"after": cursor})
    assert answer.status_code == 400
    assert "is not a cursor" in answer.json()["detail"]


@pytest.mark.parametrize("name", ListName)
def test_lists_are_downloadable_files(monitor: Running, known_records: Recorder, name: ListName) -> None:
    sheet = monitor.get(f"/api/lists/{name}.csv")
    assert sheet.headers["content-disposition"] == f'attachment; filename="{name}.csv"'
    rows = list(csv.DictReader(io.StringIO(sheet.content.decode("utf-8-sig"))))
    assert {row["bin_id"] for row in rows} == BINS_BY_LIST[name]
    book = load_workbook(io.BytesIO(monitor.get(f"/api/lists/{name}.xlsx").content))
    head, *cells = book.worksheets[0].iter_rows(values_only=True)
    assert list(head) == list(rows[0])
    assert {row[head.index("bin_id")] for row in cells} == BINS_BY_LIST[name]
    prefix = min(BINS_BY_LIST[name])
    links = Parsed(monitor.page(f"/lists/{name}?prefix={prefix}")).tags("a")
    downloads = [link["href"] for link in links if "download" in link]
    assert downloads == [f"/api/lists/{name}.{form}?prefix={prefix}" for form in ("csv", "xlsx")]
    assert monitor.get(f"/api/lists/{name}.exe").status_code == 422
    assert monitor.get("/lists/none").status_code == 422


def test_keys_that_look_like_formulas_are_escaped(monitor: Running, recorder: Recorder) -> None:
    recorder.count("=cmd.jpg", reason=Reason.CORRUPT)
    assert ",'=cmd.jpg," in monitor.get("/api/lists/failed.csv").text
    book = load_workbook(io.BytesIO(monitor.get("/api/lists/failed.xlsx").content))
    cell = next(cell for row in book.worksheets[0].iter_rows() for cell in row if cell.value == "=cmd.jpg")
    assert cell.data_type == "s"


# On the command line


def _run(monkeypatch: pytest.MonkeyPatch, *command: str) -> int:
    monkeypatch.setattr(sys, "argv", ["binwatch", "monitor", *command])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def working_dir(known_records: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Change to an empty folder and configure the known records."""
    monkeypatch.setenv("BINWATCH_DATABASE_URL", known_records.engine.url.render_as_string(hide_password=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_lists_are_written(
    working_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ListName:
        assert _run(monkeypatch, "list", name, "--out", f"{name}.csv") == 0
        rows = csv.DictReader(io.StringIO((working_dir / f"{name}.csv").read_text(encoding="utf-8-sig")))
        assert {row["bin_id"] for row in rows} == BINS_BY_LIST[name]
    assert "without-photo.csv: 1 row\n" in capsys.readouterr().out
    assert _run(monkeypatch, "list", "failed", "--reason", "truncated", "--out", "one.xlsx") == 0
    assert load_workbook(working_dir / "one.xlsx").worksheets[0].max_row == 2
    assert _run(monkeypatch, "list", "without-photo", "--reason", "truncated", "--out", "none.csv") == 2
    assert "--reason and --model are for the list failed" in capsys.readouterr().err
    assert _run(monkeypatch, "list", "failed", "--out", "list.doc") == 2
    assert "unknown suffix" in capsys.readouterr().err
    assert _run(monkeypatch, "list", "others", "--out", "list.csv") == 2


def test_lists_are_printed_as_csv_into_a_pipe(
    working_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ListName:
        for option in ((), ("--out", "-")):
            assert _run(monkeypatch, "list", name, *option) == 0
            printed = capsys.readouterr()
            rows = list(csv.DictReader(io.StringIO(printed.out)))
            assert {row["bin_id"] for row in rows} == BINS_BY_LIST[name]
            assert printed.err == f"{count_noun(len(rows), 'row')}\n"
    assert _run(monkeypatch, "discrepancies") == 0
    assert _run(monkeypatch, "discrepancies", "--out", "all.csv") == 0
    assert capsys.readouterr().out.startswith((working_dir / "all.csv").read_text(encoding="utf-8-sig"))
    assert list(working_dir.glob("*.csv")) == [working_dir / "all.csv"]


def test_lists_are_tables_on_a_terminal(
    working_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name, value in {"TERM": "dumb", "COLUMNS": "200", "LINES": "50"}.items():  # dumb: without bold
        monkeypatch.setenv(name, value)
    for name in ListName:
        assert _run(monkeypatch, "list", name) == 0
        head, *rows = [line for line in capsys.readouterr().out.splitlines() if "│" in line or "┃" in line]
        assert [cell.strip() for cell in head.split("┃")[1:-1]] == [
            item.replace("_", " ") for item in LIST_TERMINAL_COLUMNS[name]
        ]
        assert {row.split("│")[1].strip() for row in rows} == BINS_BY_LIST[name]
        assert _run(monkeypatch, "list", name, "--out", "-") == 0
        assert {row["bin_id"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))} == BINS_BY_LIST[name]
    assert _run(monkeypatch, "discrepancies", "--prefix", "nowhere") == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "0 rows\n")


def test_discrepancies_are_written_as_in_the_api(
    working_dir: Path, monitor: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "discrepancies", "--out", "all.csv") == 0
    written = list(csv.reader(io.StringIO((working_dir / "all.csv").read_text(encoding="utf-8-sig"))))
    assert written == list(csv.reader(io.StringIO(monitor.get("/api/discrepancies.csv").text)))
    assert _run(monkeypatch, "discrepancies", "--direction", "missing", "--not-audited", "--out", "some.xlsx") == 0
    head, *rows = load_workbook(working_dir / "some.xlsx").worksheets[0].iter_rows(values_only=True)
    assert [row[head.index("bin")] for row in rows] == ["f"]
    assert _run(monkeypatch, "discrepancies", "--until", "2020-01-01", "--out", "none.json") == 0
    assert '"discrepancies": []' in (working_dir / "none.json").read_text()
    assert _run(monkeypatch, "discrepancies", "--level", "0.9", "--out", "none.csv") == 2
    assert "--level 0.9: not above 0 and at most 0.5" in capsys.readouterr().err


# In the database


@pytest.mark.parametrize("name", ListName)
def test_list_pages_are_read_from_an_index(records_engine: Engine, name: ListName) -> None:
    """No rows outside the list are read, and the list is not sorted."""
    recorder = Recorder(records_engine)
    recorder.count("h.jpg", reason=Reason.TRUNCATED)
    recorder.expect("y", 2)
    recorder.count("g.jpg", 2)
    statements: list[tuple[str, object]] = []
    event.listen(
        records_engine, "before_cursor_execute", lambda *arguments: statements.append((arguments[2], arguments[3]))
    )
    filters = {ListName.FAILED: FailedFilters(), ListName.VARIANCES: VarianceFilters(state=VarianceState.OPEN)}.get(
        name, ListFilters()
    )
    with records_engine.connect() as connection:
        read_list(connection, LISTS[name], filters)
        statement, parameters = statements[-1]
        explain = "EXPLAIN QUERY PLAN " if records_engine.dialect.name == "sqlite" else "EXPLAIN "
        if records_engine.dialect.name != "sqlite":
            for table in ("bins", "counts", "expectations", "variances", "variance_trail"):
                connection.exec_driver_sql(f"ANALYZE {table}")
            connection.exec_driver_sql("SET enable_seqscan = off")
            connection.exec_driver_sql("SET enable_sort = off")
        plan = "\n".join(str(row) for row in connection.exec_driver_sql(explain + statement, parameters))
    named = {ListName.FAILED: "ix_counts_failed", ListName.VARIANCES: "ix_variances_state"}
    index = named.get(name, f"ix_bins_{name.value.replace('-', '_')}")
    assert index in plan
    assert "TEMP B-TREE" not in plan
