"""Tests of the command `binwatch check` on real photos with the real model."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from sqlalchemy import func, select

from binwatch.__main__ import main
from binwatch.bundle import Bundle
from binwatch.counts import item_difference
from binwatch.records.engine import connect
from binwatch.records.tables import Comparison, Count
from binwatch.settings import DEFAULT_MODEL, load_settings
from monitor.views.discrepancies import Direction, Filters, read_discrepancies, read_level
from tests.conftest import ROOT
from worker.check.records import latest_variant

SAMPLES = ROOT / "samples"
EXPECTED = {"00182": 5, "00183": 1, "00184": 0, "00297": 10, "00298": 3}
"""00183 shows 6 items, and 00184 shows 5."""


@dataclass(frozen=True)
class Result:
    status: int
    out: list[str]
    err: str


Check = Callable[..., Result]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Check:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["binwatch", "check", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capfd.readouterr()
        return Result(status, out.splitlines(), err)

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in EXPECTED:
        shutil.copy2(SAMPLES / "bin-images" / f"{name}.jpg", folder)
    return folder


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    """An inventory file as written by Excel, with ids as numbers."""
    book = openpyxl.Workbook()
    book.active.append(["Bin ID", "Expected Qty"])
    for name, quantity in EXPECTED.items():
        book.active.append([int(name), quantity])
    book.save(tmp_path / "stock.xlsx")
    return tmp_path / "stock.xlsx"


def _sheet(file: Path, name: str) -> list[dict[str, Any]]:
    head, *rows = openpyxl.load_workbook(file)[name].iter_rows(values_only=True)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_list_is_ranked_like_monitor(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    shutil.copy2(SAMPLES / "metadata" / "00184.json", photos)
    done = check(photos, "--expected", stock, "--out", "wrong.xlsx")
    assert done.status == 0
    rows = _sheet(tmp_path / "wrong.xlsx", "Bins")
    assert {row["bin"]: row["expected"] for row in rows} == EXPECTED
    agrees = [row["verdict"] == "agrees" for row in rows]
    assert agrees == sorted(agrees)
    for row in rows:
        shares = [row[f"p({name})"] for name in ("0", "1", "2", "3", "4", "5", "more than 5")]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert row["difference"] == item_difference(shares.index(max(shares)), row["expected"])
    assert {row["bin"] for row in rows if row["verdict"] == "look first"} >= {"00184"}
    assert next(row for row in rows if row["bin"] == "00184")["articles"].startswith("1 × B00016X7NA Aura Cacia")
    database = connect(f"sqlite:///{tmp_path}/wrong-records/records.db")
    with database.connect() as connection:
        result = read_discrepancies(connection, Filters(direction=Direction.EITHER), 0.05).items
    assert [row["bin"] for row in rows if row["verdict"] != "agrees"] == [item.bin_id for item in result]
    p_values = [row["how odd (p-value)"] for row in rows if row["verdict"] != "agrees"]
    assert p_values == pytest.approx([item.p_value for item in result])  # Excel stores fewer digits


def test_quantity_that_model_cannot_predict_is_not_judged(
    check: Check, photos: Path, stock: Path, tmp_path: Path
) -> None:
    """This holds for the list and for the monitor's pages."""
    bundle = shutil.copytree(DEFAULT_MODEL, tmp_path / "model")
    card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    categories = [category for category in card["calibration"]["categories"] if 0 not in category["classes"]]
    card["calibration"] |= {"categories": categories, "photos": sum(len(category["either"]) for category in categories)}
    card["answers"] = [3, 4, 5, 6]
    (bundle / "card.json").write_text(json.dumps(card), encoding="utf-8")
    done = check(photos, "--expected", stock, "--model", bundle, "--out", "wrong.json")
    why = "the model cannot predict the expected quantity, or has no calibration photos of it"
    assert f"2 photos not judged: {why}, so check these bins yourself" in done.out
    rows = json.loads((tmp_path / "wrong.json").read_text(encoding="utf-8"))["bins"]
    wrong = [row for row in rows if row["verdict"] != "agrees"]
    last = {row["bin"]: (row["verdict"], row["how odd (p-value)"]) for row in wrong[-2:]}
    assert last == {"00183": ("differs", None), "00184": ("differs", None)}
    assert all(row["how odd (p-value)"] is not None for row in rows if row["bin"] not in last)
    database = connect(f"sqlite:///{tmp_path}/wrong-records/records.db")
    with database.connect() as connection:
        result = read_discrepancies(connection, Filters(direction=Direction.EITHER), 0.05).items
        level = read_level(connection, 0.05)
    assert [item.bin_id for item in result] == [row["bin"] for row in wrong]
    assert [(item.chance, item.p_value, item.flagged) for item in result[-2:]] == [(None, None, False)] * 2
    assert (level.compared, level.calibrated) == (5, 3)


def test_printed_summary(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    done = check(photos, "--expected", stock, "--out", "wrong.json")
    report = json.loads((tmp_path / "wrong.json").read_text(encoding="utf-8"))
    wrong = sum(row["verdict"] != "agrees" for row in report["bins"])
    flagged = sum(row["verdict"] == "look first" for row in report["bins"])
    assert done.out == [
        f"{stock}: bin from 'Bin ID', quantity from 'Expected Qty'",
        "5 rows: 5 match a photo (5 of them with zeros restored that spreadsheets drop)",
        f"5 photos in {photos}: 5 counted now with model starter-1, 0 before and kept in wrong-records",
        f"5 photos compared: {5 - wrong} as expected, {wrong} not; the model counts 44% of its test photos right, so"
        " it is wrong about many of these",
        f"look first at {flagged} bin{'s' * (flagged != 1)}: the photo is odd for the expected quantity"
        " (p-value at most 0.05); fewer than 1 would be flagged by chance if all 5 records were correct",
        "written, the oddest bins first: wrong.json",
        f"to see them in a browser: BINWATCH_DATABASE_URL=sqlite:///{tmp_path}/wrong-records/records.db"
        f" BINWATCH_PHOTO_DIR={photos} binwatch monitor serve",
        "then open the address that it prints; Ctrl-C ends it",
    ]
    assert report["summary"][:3] == done.out[2:5]
    assert [line.split(":")[0] for line in report["summary"][3:]] == [
        "verdict",
        "how odd (p-value)",
        "p(0) to p(more than 5)",
    ]


def test_monitor_command_has_settings_of_check(
    check: Check, photos: Path, stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINWATCH_SLICE_PATTERN", "(00[0-9])")
    shutil.copytree(SAMPLES / "model-lite", tmp_path / "my model")
    chosen = ("--model", "my model", "--level", "0.2", "--direction", "missing")
    done = check(photos, "--expected", stock, "--out", "wrong.json", *chosen)
    assert done.out[-2] == (
        f"to see them in a browser: BINWATCH_DATABASE_URL=sqlite:///{tmp_path}/wrong-records/records.db"
        f" BINWATCH_PHOTO_DIR={photos} BINWATCH_MODEL_DIR='{tmp_path}/my model' BINWATCH_FLAG_LEVEL=0.2"
        " BINWATCH_FLAG_DIRECTION=missing BINWATCH_SLICE_PATTERN='(00[0-9])' binwatch monitor serve"
    )


def test_monitor_command_has_defaults_that_environment_overrides(
    check: Check, photos: Path, stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINWATCH_MODEL_DIR", str(SAMPLES / "model-lite"))
    monkeypatch.setenv("BINWATCH_FLAG_LEVEL", "0.2")
    monkeypatch.setenv("BINWATCH_FLAG_DIRECTION", "missing")
    defaults = ("--model", DEFAULT_MODEL, "--level", "0.05", "--direction", "either")
    done = check(photos, "--expected", stock, "--out", "wrong.json", *defaults)
    assert done.out[-2] == (
        f"to see them in a browser: BINWATCH_DATABASE_URL=sqlite:///{tmp_path}/wrong-records/records.db"
        f" BINWATCH_PHOTO_DIR={photos} BINWATCH_MODEL_DIR={DEFAULT_MODEL} BINWATCH_FLAG_LEVEL=0.05"
        " BINWATCH_FLAG_DIRECTION=either binwatch monitor serve"
    )


def test_records_folder_with_special_characters(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    done = check(photos, "--expected", stock, "--out", "wrong.json", "--records", "what?now 100%41")
    assert (tmp_path / "what?now 100%41" / "records.db").stat().st_size > 0
    assert not (tmp_path / "what").exists()
    match = re.search(r"BINWATCH_DATABASE_URL='(.+?)'", done.out[-2])
    assert match is not None
    with connect(match[1]).connect() as connection:
        assert connection.execute(select(func.count()).select_from(Count)).scalar_one() == 5


@pytest.mark.parametrize("how", ["pattern", "list"])
def test_photos_not_named_after_bins(check: Check, photos: Path, stock: Path, tmp_path: Path, how: str) -> None:
    files = {name: photos / name / "IMG_1.jpg" for name in EXPECTED}
    for name, file in files.items():
        file.parent.mkdir()
        (photos / f"{name}.jpg").rename(file)
    rows = "".join(f"{name}/IMG_1.jpg,{name}\n" for name in EXPECTED)
    (tmp_path / "bins.csv").write_text(f"photo,bin\n{rows}", encoding="utf-8")
    options = {"pattern": ["--bin-pattern", r"(?P<bin>[^/]+)/[^/]+$"], "list": ["--bin-list", tmp_path / "bins.csv"]}
    done = check(photos, "--expected", stock, *options[how])
    assert done.status == 0
    assert done.out[1].startswith("5 rows: 5 match a photo (")
    assert {row["bin"]: row["photo"] for row in _sheet(tmp_path / "wrong.xlsx", "Bins")} == {
        name: f"{name}/IMG_1.jpg" for name in EXPECTED
    }


def test_bin_pattern_without_bin_group_is_refused(check: Check, photos: Path, stock: Path) -> None:
    done = check(photos, "--expected", stock, "--bin-pattern", "[0-9]+")
    assert done.status == 2
    assert "the bin pattern '[0-9]+' has no group (?P<bin>…)" in done.err


def test_repeated_run_counts_only_new_photos(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    arguments = (photos, "--expected", stock, "--out", "wrong.csv")
    assert "5 counted now" in "\n".join(check(*arguments).out)
    first = (tmp_path / "wrong.csv").read_bytes()
    assert "0 counted now with model starter-1, 5 before" in "\n".join(check(*arguments).out)
    assert (tmp_path / "wrong.csv").read_bytes() == first
    shutil.copy2(SAMPLES / "bin-images" / "00382.jpg", photos / "00298.jpg")
    assert "1 counted now with model starter-1, 4 before" in "\n".join(check(*arguments).out)
    database = connect(f"sqlite:///{tmp_path}/wrong-records/records.db")
    with database.connect() as connection:
        assert connection.execute(select(func.count()).select_from(Count)).scalar_one() == 6
        # Repeated quantities change nothing.
        assert connection.execute(select(func.count()).select_from(Comparison)).scalar_one() == 6


def test_everything_not_compared_is_reported(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    (photos / "00183.jpg").write_bytes((photos / "00183.jpg").read_bytes()[:3000])
    (photos / "IMG_1.avif").write_bytes(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1")
    (photos / "scan.tiff").write_bytes(b"II*\0" + bytes(100))
    (photos / "notes.txt").write_text("not a photo")
    (photos / "gone.jpg").symlink_to(tmp_path / "no-such-file.jpg")
    (photos / "shelf" / "A").mkdir(parents=True)
    shutil.copy2(SAMPLES / "bin-images" / "00382.jpg", photos / "shelf" / "A" / "00382.jpg")
    shutil.copy2(SAMPLES / "bin-images" / "00383.jpg", photos / "shelf" / "A" / "00184.jpg")
    (photos / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    with stock.open("rb") as opened:
        book = openpyxl.load_workbook(opened)
    book.active.append(["Z-99", 4])
    book.active.append(["Z-98", "four"])
    book.save(stock)
    done = check(photos, "--expected", stock, "--out", "wrong.xlsx", "--strict")
    assert done.status == 1
    failed = {row["photo"]: row for row in _sheet(tmp_path / "wrong.xlsx", "Failed")}
    assert {name: (row["reason"], row["what to do"]) for name, row in failed.items()} == {
        "00183.jpg": ("truncated", "copy the file again, or take the photo again"),
        "IMG_1.avif": ("unsupported format", "replace it with a JPEG or PNG file"),
        "scan.tiff": ("corrupt", "copy the file again, or take the photo again"),
        "gone.jpg": ("missing", "check where the link points, and whether its disk is mounted"),
        "notes.txt": ("skipped", "if it is a photo, save it as JPEG or PNG"),
        "caf\\udce9.jpg": ("skipped", "rename the file, so that its name is valid UTF-8"),
    }
    without = _sheet(tmp_path / "wrong.xlsx", "Photos without expectation")
    assert [row["photo"] for row in without] == ["shelf/A/00382.jpg"]
    assert [row["bin"] for row in _sheet(tmp_path / "wrong.xlsx", "Expectations without photo")] == ["Z-99"]
    photos_of_184 = [row["photo"] for row in _sheet(tmp_path / "wrong.xlsx", "Bins") if row["bin"] == "00184"]
    assert sorted(photos_of_184) == ["00184.jpg", "shelf/A/00184.jpg"]
    zeros = "5 of them with zeros restored that spreadsheets drop"
    for line in (
        f"7 rows: 5 match a photo ({zeros}), 1 does not ('Z-99'), 1 refused",
        "refused: 1 not a number (row 8, 'Z-98'); listed in wrong.refused-rows.csv",
        "5 photos not counted, 1 other file not read: 'Failed' says what to do",
        "1 photo of a bin that the inventory file does not have ('shelf/A/00382.jpg'); if photos are not named after"
        " bins, see --bin-pattern and --bin-list",
        "1 bin of the inventory file without a photo",
        "1 bin with several photos: each is compared separately",
    ):
        assert line in done.out


def test_kept_columns(check: Check, photos: Path, tmp_path: Path) -> None:
    rows = ["Zone,Bin,SKU,Qty,Note"]
    rows += [f"A{n},{name},one,1," for n, name in enumerate(EXPECTED)]
    rows += [f"B{n},{name},two,1,fragile" for n, name in enumerate(EXPECTED)] + ["C9,Z-99,one,4,"]
    (tmp_path / "stock.csv").write_text("\n".join(rows), encoding="utf-8")
    keep_options = ("--keep-column", "zone", "--keep-column", "Note")
    assert check(photos, "--expected", tmp_path / "stock.csv", *keep_options).status == 0
    result = {row["bin"]: (row["zone"], row["Note"]) for row in _sheet(tmp_path / "wrong.xlsx", "Bins")}
    assert result == {name: (f"A{n}; B{n}", "fragile") for n, name in enumerate(EXPECTED)}
    (without,) = _sheet(tmp_path / "wrong.xlsx", "Expectations without photo")
    assert (without["bin"], without["zone"], without["Note"], without["expected"]) == ("Z-99", "C9", None, 4)
    done = check(photos, "--expected", tmp_path / "stock.csv", "--keep-column", "Aisle")
    assert done.status == 2
    assert "no column 'Aisle', only 'Zone', 'Bin', 'SKU', 'Qty', 'Note'; correct --keep-column" in done.err
    for names in (("bin",), ("Note", "note ")):
        options = [option for name in names for option in ("--keep-column", name)]
        done = check(photos, "--expected", tmp_path / "stock.csv", *options)
        assert done.status == 2
        assert f"--keep-column {names[-1]}: the list has a column of that name; rename it" in done.err


def test_flag_level_and_direction(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    counted: dict[tuple[str, ...], int] = {}
    for options in ((), ("--level", "0.5"), ("--level", "0.5", "--direction", "surplus")):
        assert check(photos, "--expected", stock, "--out", "wrong.json", *options).status == 0
        report = json.loads((tmp_path / "wrong.json").read_text(encoding="utf-8"))
        counted[options] = sum(row["verdict"] == "look first" for row in report["bins"])
        surplus = "surplus" in options
        level, column = 0.5 if options else 0.05, "how odd if surplus" if surplus else "how odd (p-value)"
        differs = [row for row in report["bins"] if row["difference"] > 0 or (row["difference"] < 0 and not surplus)]
        assert counted[options] == sum(row[column] <= level for row in differs)
    assert counted[()] < counted["--level", "0.5"]


def test_inventory_file_is_never_overwritten(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    before = stock.read_bytes()
    done = check(photos, "--expected", stock, "--out", stock)
    assert done.status == 2
    assert f"{stock}: would be overwritten; name another list with --out" in done.err
    assert stock.read_bytes() == before
    text = "bin,quantity\n00184,3\n"
    for name in ("wrong.refused-rows.csv", "wrong.failed.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        done = check(photos, "--expected", tmp_path / name, "--out", "wrong.csv")
        assert done.status == 2
        assert f"{name}: would be overwritten; name another list with --out" in done.err
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    (tmp_path / "wrong.w48.csv").write_text(text, encoding="utf-8")
    assert check(photos, "--expected", tmp_path / "wrong.w48.csv", "--out", "wrong.csv").status == 0
    assert (tmp_path / "wrong.w48.csv").read_text(encoding="utf-8") == text


def test_read_only_list_is_not_replaced(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.xlsx").write_bytes(b"with remarks")
    (tmp_path / "wrong.xlsx").chmod(0o444)
    done = check(photos, "--expected", stock)
    assert done.status == 2
    assert "wrong.xlsx: is read-only; name another file, or allow it to be replaced" in done.err
    assert (tmp_path / "wrong.xlsx").read_bytes() == b"with remarks"


def test_quantity_column_without_quantities(check: Check, photos: Path, tmp_path: Path) -> None:
    stock, refused = tmp_path / "stock.csv", tmp_path / "wrong.refused-rows.csv"
    stock.write_text("bin,unit\n" + "".join(f"{name},EA\n" for name in EXPECTED), encoding="utf-8")
    refused.write_text("of an earlier run", encoding="utf-8")
    done = check(photos, "--expected", stock, "--quantity-column", "quantity")
    assert done.status == 2
    assert refused.read_text(encoding="utf-8") == "of an earlier run", "there is no new list to replace it"
    done = check(photos, "--expected", stock, "--quantity-column", "unit")
    assert done.status == 2
    assert "no row is left to compare; 5 have no usable quantity: correct --quantity-column" in done.err


def test_latest_variant_is_of_current_model(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    assert check(photos, "--expected", stock).status == 0
    card = Bundle(DEFAULT_MODEL).card
    database = connect(f"sqlite:///{tmp_path}/wrong-records/records.db")
    bucket = load_settings().bucket
    assert latest_variant(database, bucket, card) == "int8"
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE counts SET model_version = 'another', precision = 'fp32' WHERE id = 5")
    assert latest_variant(database, bucket, card) == "int8"


def test_outdated_bins_are_reported(check: Check, photos: Path, stock: Path) -> None:
    assert "its pages also show" not in "\n".join(check(photos, "--expected", stock).out)
    outdated, *_, dropped = EXPECTED
    (photos / f"{outdated}.jpg").unlink()
    with stock.open("rb") as opened:
        book = openpyxl.load_workbook(opened)
    book.active.delete_rows(book.active.max_row)
    book.save(stock)
    done = check(photos, "--expected", stock)
    assert "its pages also show 2 bins of earlier runs without a photo or a quantity now" in done.out[-1]
    assert dropped not in "\n".join(done.out[:2])


def test_own_files_among_photos_are_ignored(
    check: Check, photos: Path, stock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(stock, photos)
    (photos / "wrong-record.txt").touch()
    monkeypatch.chdir(photos)
    for _ in range(2):
        done = check(".", "--expected", stock.name, "--out", "wrong.csv", "--out", "wrong.html", "--strict")
        assert done.status == 0
        with (photos / "wrong.failed.csv").open(encoding="utf-8-sig", newline="") as file:
            assert [row["photo"] for row in csv.DictReader(file)] == ["wrong-record.txt"]


@pytest.mark.parametrize("ending", ["xlsx", "csv", "json", "html", "parquet"])
def test_unwritable_list(check: Check, photos: Path, stock: Path, tmp_path: Path, ending: str) -> None:
    (tmp_path / f"wrong.{ending}").mkdir()
    done = check(photos, "--expected", stock, "--out", f"wrong.{ending}", "--out", f"other.{ending}")
    assert done.status == 2
    assert f"wrong.{ending}: cannot be written" in done.err


def test_records_of_later_release_are_refused(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    assert check(photos, "--expected", stock).status == 0
    with connect(f"sqlite:///{tmp_path}/wrong-records/records.db").begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    done = check(photos, "--expected", stock)
    assert done.status == 2
    assert "the records are from another release" in done.err
    assert "name another folder with --records" in done.err


def test_all_formats_have_same_content(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    name = "=1+1"
    (photos / "00298.jpg").rename(photos / f"{name}.jpg")
    book = openpyxl.load_workbook(stock)
    book.active.append([f"'{name}", 3])
    book.active.cell(7, 1).value = name
    book.active.cell(7, 1).data_type = "s"
    book.save(stock)
    endings = ("xlsx", "csv", "parquet", "json", "html")
    done = check(photos, "--expected", stock, *(text for ending in endings for text in ("--out", f"w.{ending}")))
    assert done.status == 0, done.err
    in_xlsx = _sheet(tmp_path / "w.xlsx", "Bins")
    in_json = json.loads((tmp_path / "w.json").read_text(encoding="utf-8"))["bins"]
    assert parquet.read_table(tmp_path / "w.parquet").to_pylist() == in_json
    with (tmp_path / "w.csv").open(encoding="utf-8-sig", newline="") as file:
        in_csv = list(csv.DictReader(file))
    assert {f"'{name}"} == {row["bin"] for row in in_csv} - {row["bin"] for row in in_xlsx}
    assert [row["photo"] for row in in_xlsx] == [row["photo"].removeprefix("'") for row in in_csv]
    assert (tmp_path / "w.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert (tmp_path / "w.expectations-without-photo.csv").exists()
    sheet = openpyxl.load_workbook(tmp_path / "w.xlsx")["Bins"]
    assert {cell.data_type for row in sheet.iter_rows() for cell in row} <= {"s", "n"}
    wrong = [row for row in in_xlsx if row["verdict"] != "agrees"]
    assert len(sheet._images) == len(wrong)
    assert sheet.cell(2, 4).hyperlink.target.replace("\\", "/") == "photos/" + wrong[0]["photo"].replace("=", "%3D")
    page = (tmp_path / "w.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == len(wrong)
    assert "<script" not in page
    assert 'href="photos/00184.jpg"' in page


def test_faults_of_input_are_reported_before_counting(check: Check, photos: Path, stock: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("bin,qty\nZ-1,4\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    no_row = "no row names a bin that has a photo; photos are named after bins, such as '00182.jpg'"
    for arguments, message in (
        ((photos, "--expected", other), no_row),
        ((photos, "--expected", tmp_path / "none.xlsx"), "none.xlsx: cannot be read"),
        ((photos, "--expected", stock, "--quantity-column", "Qty"), "no column 'Qty', only 'Bin ID', 'Expected Qty'"),
        ((photos, "--expected", stock, "--out", "wrong.doc"), "wrong.doc: unknown suffix"),
        ((photos, "--expected", stock, "--out", "no/wrong.csv"), "no/wrong.csv: its folder does not exist"),
        ((photos, "--expected", stock, "--records", stock), "cannot be created"),
        ((photos, "--expected", stock, "--model", tmp_path), "card.json: cannot be read"),
        ((tmp_path / "none", "--expected", stock), "is not a folder; name the folder with the photos"),
        ((tmp_path / "empty", "--expected", stock), "no photos here"),
    ):  # fmt: skip
        done = check(*arguments)
        assert done.status == 2
        assert message in done.err
    assert not list(tmp_path.glob("*-records"))
