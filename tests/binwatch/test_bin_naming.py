"""Mapping of keys to bins: by a list, by a pattern, otherwise by the file name."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest

from binwatch.bin_naming import BY_FILE_NAME, make_bin_naming
from binwatch.errors import SettingsError
from binwatch.settings import load_settings

FOLDER = r"(?P<bin>[^/]+)/[^/]+$"


@pytest.mark.parametrize(
    ("pattern", "key", "bin_id"),
    [
        (None, "shelf/A12/00184.jpg", "00184"),
        (FOLDER, "shelf/A12/00184.jpg", "A12"),
        (FOLDER, "shelf/A12/data.json", "A12"),
        (FOLDER, "00184.jpg", "00184"),  # no folder: by file name
        (
            r"^(?P<bin>\w+-\d+)_",
            "cam/A-7_2026-11-29.jpg",
            "A-7_2026-11-29",
        ),  # matches the whole key, which begins with cam/
        (r"(?:^|/)(?P<bin>\w+-\d+)_", "cam/A-7_2026-11-29.jpg", "A-7"),
        (r"(?P<bin>x*)", "00184.jpg", "00184"),  # an empty match does not count
        (FOLDER, "cafe\u0301/1.jpg", "caf\u00e9"),
    ],
)
def test_pattern(pattern: str | None, key: str, bin_id: str) -> None:
    assert make_bin_naming(pattern, None)(key) == bin_id


def test_the_list_takes_precedence_over_the_pattern(tmp_path: Path) -> None:
    file = tmp_path / "bins.csv"
    rows = ["photo,bin,by", "IMG_1.jpg,A-1,x", "shelf/IMG_2.jpg,A-2,x", "cafe\u0301.jpg,C,x", "'=1.jpg,D,x"]
    file.write_text("\n".join(rows), encoding="utf-8-sig")
    naming = make_bin_naming(FOLDER, file)
    assert naming("anywhere/IMG_1.jpg") == "A-1"
    assert naming("shelf/IMG_2.jpg") == "A-2"
    assert naming("other/IMG_2.jpg") == "other"
    assert naming("x/caf\u00e9.jpg") == "C"
    assert naming("=1.jpg") == "D"  # escaped so that spreadsheets do not read it as a formula
    assert make_bin_naming(None, None)("IMG_1.jpg") == BY_FILE_NAME("IMG_1.jpg") == "IMG_1"


def test_lists_may_be_spreadsheets_or_csv_variants(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["Which photo is where"], ["Bin", "Photo"], ["A-1", "IMG_1.jpg"], [7, 12]):
        book.active.append(row)
    book.save(tmp_path / "bins.xlsx")
    naming = make_bin_naming(None, tmp_path / "bins.xlsx")
    assert (naming("x/IMG_1.jpg"), naming("12")) == ("A-1", "7")
    (tmp_path / "bins.csv").write_bytes("photo;bin\nIMG_1.jpg;Fach Ö\n".encode("cp1252"))
    assert make_bin_naming(None, tmp_path / "bins.csv")("IMG_1.jpg") == "Fach Ö"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "key,bin\na,b\n",
            "no column 'photo', only 'key', 'bin'; name it in the file; the list needs a row for each photo: photo,bin",
        ),
        ("photo,bin\na.jpg,\n", "row 2: photo or bin is empty"),
        ("photo,bin\na.jpg,A\na.jpg,B\n", "row 3: a.jpg is listed for two bins, A and B"),
        ('photo,bin\n"a.jpg,A\n', "is not a CSV (unexpected end of data)"),
    ],
)
def test_incomplete_lists_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bins.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        make_bin_naming(None, file)
    assert f"{file}" in str(raised.value)
    assert words in str(raised.value)


def test_a_missing_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        make_bin_naming(None, tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("pattern", "words"), [("(", "is not a regular expression"), (r"([^/]+)/", "has no group (?P<bin>…)")]
)
def test_invalid_patterns_are_refused(monkeypatch: pytest.MonkeyPatch, pattern: str, words: str) -> None:
    with pytest.raises(SettingsError) as raised:
        make_bin_naming(pattern, None)
    assert words in str(raised.value)
    monkeypatch.setenv("BINWATCH_BIN_PATTERN", pattern)
    with pytest.raises(SettingsError) as at_start:
        load_settings()
    assert f"BINWATCH_BIN_PATTERN: {words}" in str(at_start.value)
