"""Tests of reading inventory files as spreadsheets and warehouse systems write them."""

from __future__ import annotations

import csv
import datetime
import gc
import random
import resource
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import odfdo
import openpyxl
import pytest

from binwatch.errors import BinwatchError
from binwatch.inventory.bins import BinIndex
from binwatch.inventory.columns import ColumnNames
from binwatch.inventory.quantities import AmbiguousQuantity, DecimalMark, detect_decimal_mark, parse_quantity
from binwatch.inventory.reading import InventoryQuantity, InventoryReport, Refusal, Refusals, read_expected
from binwatch.inventory.tables import open_table

GUESSED = ColumnNames()
PHOTOS = ("00184", "00297", "00382", "A-07", "Ä-1")
Rows = Iterable[Sequence[Any]]


def _read(
    file: Path, named: ColumnNames = GUESSED, photos: Iterable[str] = PHOTOS
) -> tuple[dict[str, int], InventoryReport]:
    expected, report = _expected(file, named, photos)
    return {item.bin: item.quantity for item in expected}, report


def _expected(
    file: Path, named: ColumnNames = GUESSED, photos: Iterable[str] = PHOTOS
) -> tuple[list[InventoryQuantity], InventoryReport]:
    report = InventoryReport(file)
    with Refusals(file.with_suffix(".refused.csv"), report, "make room") as refusals:
        return list(read_expected(open_table(file, named), BinIndex(photos), refusals)), report


def _xlsx(file: Path, **sheets: Rows) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    book.save(file)
    return file


def _ods(file: Path, rows: Rows) -> Path:
    document = odfdo.Document("spreadsheet")
    document.body.clear()
    table = odfdo.Table("Bestand")
    for row in rows:
        table.append_row(odfdo.Row())
        table.set_row_values(table.height - 1, list(row))
    document.body.append(table)
    document.save(file)
    return file


def _text(file: Path, text: str, encoding: str = "utf-8") -> Path:
    file.write_bytes(text.encode(encoding))
    return file


def test_leading_zeros_lost_in_excel_are_restored(tmp_path: Path) -> None:
    rows = [("Bin ID", "Expected Qty"), (184, 5), (297, 10), ("A-07", 2.0), (None, None), (4711, 1)]
    result, report = _read(_xlsx(tmp_path / "stock.xlsx", Stock=rows))
    assert result == {"00184": 5, "00297": 10, "A-07": 2, "4711": 1}
    assert report.lines() == [
        f"{tmp_path}/stock.xlsx: bin from 'Bin ID', quantity from 'Expected Qty'",
        "4 rows: 3 match a photo (2 of them with zeros restored that spreadsheets drop), 1 does not ('4711')",
    ]


def test_sheet_below_title_among_other_sheets(tmp_path: Path) -> None:
    stock = [
        ("Cycle count, DC 4", None, None, None),
        (None, datetime.date(2026, 11, 1), None, None),
        (),
        (None, "Location", "SKU", "Qty on Hand"),
        (None, "A-07", "X1", 3),
        (None, "00184.jpg", "X2", 4),
    ]
    result, report = _read(_xlsx(tmp_path / "report.xlsx", Notes=[("read me",)], Stock=stock, Old=stock))
    assert result == {"A-07": 3, "00184": 4}
    interpretation = "bin from 'Location', quantity from 'Qty on Hand', article from 'SKU' of sheet 'Stock', not 'Old'"
    assert report.description == interpretation


def test_hidden_sheets_are_ignored(tmp_path: Path) -> None:
    file = _xlsx(tmp_path / "stock.xlsx", Draft=[("bin", "qty"), ("A-07", 9)], Final=[("bin", "qty"), ("A-07", 2)])
    book = openpyxl.load_workbook(file)
    book["Draft"].sheet_state = "hidden"
    book.active = 1
    book.save(file)
    assert _read(file)[0] == {"A-07": 2}


def test_ods_from_libreoffice(tmp_path: Path) -> None:
    rows = [("Lagerplatz", "Sollmenge"), ("Ä-1", 3), (184, 7), ("00297", "1.234"), ("A-07", "12")]
    result, report = _read(_ods(tmp_path / "bestand.ods", rows))
    assert result == {"Ä-1": 3, "00184": 7, "00297": 1234, "A-07": 12}
    assert report.description == "bin from 'Lagerplatz', quantity from 'Sollmenge'"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize(("mark", "name"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_csv_encodings_and_delimiters(tmp_path: Path, encoding: str, mark: str, name: str) -> None:
    lines = ["Lagerfach;Menge;Bemerkung", "Ä-1;3;für Müller", "", ";;", "00184;5;"]
    file = _text(tmp_path / "bestand.csv", "\r\n".join(lines).replace(";", mark), encoding)
    result, report = _read(file)
    assert result == {"Ä-1": 3, "00184": 5}
    assert report.rows == 2
    title = {"utf-8-sig": "UTF-8", "cp1252": "Windows-1252"}.get(encoding, encoding[:6].upper())
    assert report.description == f"bin from 'Lagerfach', quantity from 'Menge' ({name} between columns, {title})"


def test_csv_with_quoted_cells_and_sep_line(tmp_path: Path) -> None:
    file = _text(
        tmp_path / "stock.csv",
        'sep=;\r\n"Bin";"Note, if any";"Qty"\r\n"00184";"4"" bolts, zinc";"1.234"\r\n"A-07";"";"2"\r\n',
    )
    assert _read(file)[0] == {"00184": 1234, "A-07": 2}


@pytest.mark.parametrize(
    ("header", "rows", "expected"),
    [
        ("bin;qty", ["00184;5,00", "00297;12,50", "A-07;1.234"], {"00184": 5, "A-07": 1234}),  # European
        ("bin;qty", ['00184;"5.00"', "00297;12.50", 'A-07;"1,234"'], {"00184": 5, "A-07": 1234}),  # American
        ("bin;qty", ["00184;5,000", "00297;12,000"], {"00184": 5, "00297": 12}),  # SAP's three decimals
        ("bin;qty", ["00184;5", "00297;1,200"], {"00184": 5, "00297": 1200}),
        (
            "bin;qty",
            ["00184;1 234", "00297;1'234", "A-07;1\u202f234.0"],
            dict.fromkeys(["00184", "00297", "A-07"], 1234),
        ),
        ("bin;qty", ["00184;1,234", "00297;2,500"], {}),
        ("bin;qty", ["00184;1,234,567", "00297;2,500"], {"00297": 2500}),
        ("bin;qty", ["00184;5 pcs", "00297;five", "A-07;=1+1"], {}),
    ],
)
def test_quantities_of_column(tmp_path: Path, header: str, rows: list[str], expected: dict[str, int]) -> None:
    assert _read(_text(tmp_path / "stock.csv", "\n".join([header, *rows])))[0] == expected


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [
        ("5", 5, 5),
        ("-5", -5, -5),
        ("5.", 5, 5),
        ("2e1", 20, 20),
        ("0,500", 0.5, 0.5),
        ("1,5", 1.5, 1.5),
        ("1.5", 1.5, 1.5),
        ("1,234", 1234, 1.234),
        ("1.234", 1.234, 1234),
        ("1.234,5", 1234.5, 1234.5),
        ("1,234.5", 1234.5, 1234.5),
        ("1.234.567", 1234567, 1234567),
        ("1234,000", 1234, 1234),
        ("1,2,3", None, None),
        ("1.2.3", None, None),
        ("1,234.567,8", None, None),
        ("", None, None),
        ("1_000", None, None),
    ],
)
def test_parse_quantity(text: str, point: float | None, comma: float | None) -> None:
    assert (parse_quantity(text, DecimalMark.POINT), parse_quantity(text, DecimalMark.COMMA)) == (point, comma)


def test_decimal_mark_is_not_guessed() -> None:
    assert detect_decimal_mark(["1,234", "2,345"]) is DecimalMark.UNKNOWN
    assert detect_decimal_mark(["1,5", "1.5", "1,234"]) is DecimalMark.UNKNOWN
    with pytest.raises(AmbiguousQuantity):
        parse_quantity("1,234", DecimalMark.UNKNOWN)


def test_ambiguous_rows_are_refused_and_listed(tmp_path: Path) -> None:
    _, report = _read(_text(tmp_path / "stock.csv", "bin;qty\n00184;1,234\n"))
    assert report.refused == {Refusal.UNDECIDED: 1}
    assert report.lines()[1:] == [
        "1 row: 0 match a photo, 1 refused",
        f"refused: 1 undecided (row 2, '00184'); listed in {tmp_path}/stock.refused.csv",
    ]


def test_quantities_of_articles_are_summed(tmp_path: Path) -> None:
    rows = [
        ("Storage Bin", "Material", "Qty"),
        ("A-07", "4711", "2"),
        ("A-07", "4712", "3"),
        ("00184", "4711", "1"),
        ("00184", "4713", "many"),
        ("00297", "4711", "1"),
        ("00297", "4711", "1"),
        ("00382", "4711", "1"),
    ]
    expected, report = _expected(_xlsx(tmp_path / "lx02.xlsx", Stock=rows))
    assert [(item.bin, item.quantity) for item in expected] == [("00382", 1), ("A-07", 5)]
    assert expected[1].contents == [
        {"sku": "4711", "name": "", "quantity": 2},
        {"sku": "4712", "name": "", "quantity": 3},
    ]
    assert report.refused == {Refusal.NOT_A_NUMBER: 1, Refusal.DUPLICATE: 1, Refusal.INCOMPLETE: 2}
    assert report.lines()[2] == "1 bin has several rows, one for each article: their quantities are summed"
    with (tmp_path / "lx02.refused.csv").open(encoding="utf-8", newline="") as file:
        listed = [(row["row"], row["reason"]) for row in csv.DictReader(file)]
    assert listed == [("5", "not_a_number"), ("7", "duplicate"), ("4", "incomplete"), ("6", "incomplete")]


@pytest.mark.parametrize(
    "cell",
    ["00184.jpg", "00184.JPG", "photos/00184.jpeg", r"C:\photos\00184.jpg", " 184 ", "000184", "184.0", '="00184"'],
)
def test_bin_in_cell(tmp_path: Path, cell: str) -> None:
    assert _read(_text(tmp_path / "stock.csv", f"bin,qty\n{cell},3\n"))[0] == {"00184": 3}


def test_zeros_are_restored_only_for_single_match(tmp_path: Path) -> None:
    file = _text(tmp_path / "stock.csv", "bin,qty\n7,1\n8,2\n08,3\n9,4\n009,5\n")
    result, report = _read(file, photos=["07", "007", "008", "009"])
    assert report.refused == {Refusal.SEVERAL_BINS: 1}
    # 08 is closer to 008 than 8 is; since the file has 009 itself, 9 is another bin.
    assert result == {"8": 2, "008": 3, "9": 4, "009": 5}
    assert (report.rows_with_photo, report.without_photo) == (2, ["8", "9"])


def test_columns_named_by_user(tmp_path: Path) -> None:
    file = _text(tmp_path / "stock.csv", "Kiste,Ist,Soll\n00184,4,5\n")
    with pytest.raises(
        BinwatchError, match=r"recognised as the bin, only 'Kiste', 'Ist', 'Soll'; say which with --bin-column NAME"
    ):
        _read(file)
    assert _read(file, ColumnNames("kiste", "SOLL"))[0] == {"00184": 5}
    with pytest.raises(BinwatchError, match=r"no column 'Haben', only 'Kiste', .*; correct --quantity-column"):
        _read(file, ColumnNames("Kiste", "Haben"))
    twice = _text(tmp_path / "twice.csv", "bin,qty,qty\n00184,4,5\n")
    with pytest.raises(BinwatchError, match="'qty', 'qty' may each be the quantity; give one of them another name"):
        _read(twice, ColumnNames(quantity="qty"))
    with pytest.raises(BinwatchError, match="one column for both bin and quantity"):
        _read(file, ColumnNames("Kiste", "Kiste"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"00184,5\n00297,3\n", "add a first line that names the columns, such as bin,quantity"),
        (b"bin,qty counted,qty booked\n00184,5,5\n", "'qty counted', 'qty booked' may each be the quantity"),
        (b"bin,bin,qty\n00184,184,5\n", "'bin', 'bin' may each be the bin; say which with --bin-column NAME"),
        (b"<html><table><tr><td>bin</td></tr></table>", "open it in a spreadsheet and save it as XLSX"),
        (b"PK\x03\x04 not a spreadsheet", "is not a readable XLSX or ODS file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 nor this", "is not a readable XLSX or ODS file"),
        (b"bin,qty\n00184,\x81\n", "is not a CSV"),
        (b"PAR1", "is not a Parquet file"),
    ],
)  # fmt: skip
def test_unreadable_file_error_has_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "stock.xls"
    file.write_bytes(content)
    with pytest.raises(BinwatchError, match=message):
        _read(file)


@pytest.mark.parametrize("make", [_xlsx, _ods])
def test_damaged_workbook_is_read_or_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    rows = [("bin", "qty"), ("A-07", 2)]
    file = _xlsx(tmp_path / "stock.xlsx", Stock=rows) if make is _xlsx else _ods(tmp_path / "stock.ods", rows)
    intact, chance, refused = file.read_bytes(), random.Random(0), 0
    for damages in range(60):
        data = bytearray(intact)
        for _ in range(1 + damages % 10):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
        file.write_bytes(data[: chance.randrange(10, len(data))] if damages % 4 == 0 else data)
        try:
            _read(file)
        except BinwatchError as error:
            refused += str(error).startswith(f"{file}: ")
    assert refused > 30


def test_format_is_detected_by_content(tmp_path: Path) -> None:
    file = _xlsx(tmp_path / "stock.xlsx", Stock=[("bin", "qty"), ("A-07", 2)]).rename(tmp_path / "stock.csv")
    assert _read(file)[0] == {"A-07": 2}


def _corner(file: Path) -> Path:
    """Return a file of a few kilobytes with a cell in the last row and column, so that its table has maximum size."""
    book = openpyxl.Workbook()
    book.active["A1"] = "bin"
    book.active["B1"] = "qty"
    book.active["XFD1048576"] = 1
    book.save(file)
    return file


def _repeated(file: Path) -> Path:
    """Write an ODS file of one kilobyte whose only row is repeated a million times."""
    _ods(file, [("bin", "qty"), *[("1", 3)]])
    parts = _parts(file)
    head, _, row = parts["content.xml"].decode().rpartition("<table:table-row")
    row = row.replace("<table:table-cell", '<table:table-cell table:number-columns-repeated="20"')
    parts["content.xml"] = f'{head}<table:table-row table:number-rows-repeated="1048570"{row}'.encode()
    _pack(file, parts)
    return file


def _bomb(file: Path) -> Path:
    """Write a workbook of ten megabytes with a sheet of 2.25 gigabytes."""
    _xlsx(file, Stock=[("bin", "qty"), ("00184", 3)])
    sheet = "xl/worksheets/sheet1.xml"
    parts = _parts(file)
    head, _, end = parts[sheet].partition(b"00184")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for name, data in parts.items():
            if name != sheet:
                out.writestr(name, data)
        with out.open(sheet, "w", force_zip64=True) as item:
            item.write(head)
            for _ in range(2304):
                item.write(b"x" * 2**20)
            item.write(end)
    return file


def _parts(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as parts:
        return {name: parts.read(name) for name in parts.namelist()}


def _pack(file: Path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in parts.items():
            out.writestr(name, data)


@pytest.mark.parametrize(("make", "name"), [(_corner, "a.xlsx"), (_repeated, "a.ods"), (_bomb, "a.xlsx")])
def test_workbook_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, make: Callable[[Path], Path], name: str) -> None:
    file = make(tmp_path / name)
    assert file.stat().st_size < 20 * 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BinwatchError, match=r"takes more than 2 GiB of memory or 120 s to unpack; .* as CSV"):
        _read(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 2**10  # KiB


def test_workbook_with_understated_size_is_refused(tmp_path: Path) -> None:
    file = _xlsx(tmp_path / "stock.xlsx", Stock=[("bin", "qty"), *[("00184", 3)] * 1000])
    with zipfile.ZipFile(file) as parts:
        stated = parts.getinfo("xl/worksheets/sheet1.xml").file_size
    data = file.read_bytes()
    assert data.count(stated.to_bytes(4, "little")) == 2  # in the central directory and in the local header
    file.write_bytes(data.replace(stated.to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(BinwatchError, match="is not a readable XLSX or ODS file"):
        _read(file)


def test_unpacked_sheets_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = open_table(_xlsx(tmp_path / "stock.xlsx", Stock=[("bin", "qty"), ("A-07", 2)]))
    assert [cells.bin for cells in table.rows()] == ["A-07"]
    assert [path.name for path in tmp_path.glob("binwatch-*/*")] == ["0"]
    del table
    gc.collect()
    assert list(tmp_path.glob("binwatch-*")) == []
