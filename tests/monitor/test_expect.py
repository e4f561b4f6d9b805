"""Import of expected quantities, row by row and idempotent, on both databases."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from binwatch.errors import BinwatchError
from binwatch.inventory.importing import CHUNK_ROWS, import_file
from binwatch.inventory.reading import InventoryReport, Refusal
from binwatch.records.audits import UnknownBin, add_audit
from binwatch.records.tables import Comparison, ConfusionTotal, Expectation
from monitor.views.bins import read_bin
from monitor.views.discrepancies import Direction, Filters, read_discrepancies
from tests.monitor.conftest import BUCKET, Recorder

ROWS: list[tuple[str, str, Refusal | None]] = [
    ("00001", "3", None),
    ("00002", " 4.0 ", None),
    ("00003", "1000000", None),
    ("", "3", Refusal.NO_BIN),
    ("bin-images/00004", "3", Refusal.BAD_BIN),
    ("a\tb", "3", Refusal.BAD_BIN),
    ("x" * 501, "3", Refusal.BAD_BIN),
    ("00005", "", Refusal.NO_QUANTITY),
    ("00005", "many", Refusal.NOT_A_NUMBER),
    ("00005", "nan", Refusal.NOT_A_NUMBER),
    ("00005", "1_000", Refusal.NOT_A_NUMBER),
    ("00005", "-1", Refusal.NEGATIVE),
    ("00005", "2.5", Refusal.FRACTIONAL),
    ("00005", "inf", Refusal.NOT_A_NUMBER),
    ("00005", "1e400", Refusal.TOO_LARGE),
    ("00005", "1_0", Refusal.NOT_A_NUMBER),
    ("00005", "\u0661\u0662", Refusal.NOT_A_NUMBER),  # Arabic digits: Python takes them for 12
    ("00005", "1000001", Refusal.TOO_LARGE),
    ("00001", "3", Refusal.DUPLICATE),
    ("00001", "4", Refusal.CONTRADICTION),
    ("121", "1", None),
    ("00121", "2", None),
]


def _write(path: Path, rows: list[tuple[str, str]], header: tuple[str, ...] = ("bin", "quantity")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def _quantities(engine: Engine) -> dict[str, int | None]:
    with engine.connect() as connection:
        rows = connection.execute(select(Expectation.bin_id, Expectation.quantity).order_by(Expectation.id)).all()
    return {row.bin_id: row.quantity for row in rows}


def _rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(Expectation)).scalar_one()


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    return _write(tmp_path / "stock.csv", [(bin_id, quantity) for bin_id, quantity, _ in ROWS])


def test_every_row_is_recorded_or_refused_with_a_reason(records_engine: Engine, stock: Path) -> None:
    report = import_file(stock, records_engine, BUCKET)
    assert (report.recorded, report.known) == (5, 0)
    assert _quantities(records_engine) == {"00001": 3, "00002": 4, "00003": 1_000_000, "121": 1, "00121": 2}
    with (stock.parent / "stock.csv.refused.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    expected = [(bin_id, why) for bin_id, _, why in ROWS if why]
    assert [(row["bin"], row["reason"]) for row in listed] == expected
    assert listed[0]["row"] == "5"
    elsewhere = {Refusal.SEVERAL_BINS, Refusal.UNDECIDED, Refusal.INCOMPLETE}  # tests/binwatch/test_inventory.py
    assert set(report.refused) == set(Refusal) - elsewhere, "every other reason occurs in this test"


def test_refused_rows_are_escaped_for_spreadsheets_and_can_be_reimported(
    records_engine: Engine, tmp_path: Path
) -> None:
    bins = ["=HYPERLINK(1)", "+1", "-1", "@a", "'quoted", "00001"]
    stock = _write(tmp_path / "stock.csv", [(name, "-3") for name in bins])
    assert import_file(stock, records_engine, BUCKET).refused == {Refusal.NEGATIVE: len(bins)}
    refused = stock.with_name("stock.csv.refused.csv")
    cells = [cell for row in refused.read_text(encoding="utf-8").splitlines() for cell in row.split(",")]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
    refused.write_text(refused.read_text(encoding="utf-8").replace("'-3", "3"), encoding="utf-8")
    assert import_file(refused, records_engine, BUCKET).recorded == len(bins)
    assert _quantities(records_engine) == dict.fromkeys(bins, 3)


def test_the_list_of_refused_rows_is_deleted_once_none_is_refused(records_engine: Engine, tmp_path: Path) -> None:
    stock = _write(tmp_path / "stock.csv", [("00001", "2"), ("00002", "-3")])
    import_file(stock, records_engine, BUCKET)
    refused = stock.with_name("stock.csv.refused.csv")
    assert refused.exists()
    unreadable = _write(tmp_path / "other.csv", [("1", "2")], header=("a", "b"))
    with pytest.raises(BinwatchError):
        import_file(unreadable, records_engine, BUCKET, refused=refused)
    assert refused.exists(), "an unreadable file does not replace the list of refused rows"
    _write(stock, [("00001", "2"), ("00002", "3")])
    import_file(stock, records_engine, BUCKET)
    assert not refused.exists()


def test_importing_the_same_content_again_changes_nothing(records_engine: Engine, stock: Path) -> None:
    import_file(stock, records_engine, BUCKET)
    copy = stock.with_name("copy.csv")
    copy.write_bytes(stock.read_bytes())
    os.utime(copy, (time.time() - 5, time.time() - 5))
    for file in (stock, copy):
        report = import_file(file, records_engine, BUCKET)
        assert (report.recorded, report.known) == (0, 5)
    assert _rows(records_engine) == 5


def test_the_newer_of_inventory_file_and_metadata_wins(
    sqlite_records: Engine, recorder: Recorder, tmp_path: Path
) -> None:
    recorder.count("bin-images/a.jpg", 2)
    recorder.expect("a", 5, at=datetime.now(UTC) - timedelta(days=2))
    file = _write(tmp_path / "stock.csv", [("a", "2")])
    import_file(file, sqlite_records, BUCKET, as_of=datetime.now(UTC) - timedelta(days=3))
    import_file(file, sqlite_records, BUCKET, as_of=datetime.now(UTC) - timedelta(days=1))
    with sqlite_records.connect() as connection:
        expected = connection.execute(select(Comparison.expected).order_by(Comparison.id)).scalars().all()
    assert expected == [5, 2]


def test_an_unchanged_nightly_file_leaves_the_agreement_unchanged(
    sqlite_records: Engine, recorder: Recorder, tmp_path: Path
) -> None:
    for bin_id in "ab":
        recorder.count(f"bin-images/{bin_id}.jpg", 2)
    for night, second in enumerate((2, 2, 3)):
        file = _write(tmp_path / f"stock-{night}.csv", [("a", "4"), ("b", str(second))])
        as_of = datetime.now(UTC) - timedelta(days=3 - night)
        assert import_file(file, sqlite_records, BUCKET, as_of=as_of).recorded == 2
    with sqlite_records.connect() as connection:
        compared = connection.execute(select(Comparison.bin_id, Comparison.expected).order_by(Comparison.id)).all()
        total = connection.execute(select(func.sum(ConfusionTotal.comparisons))).scalar_one()
    assert [tuple(row) for row in compared] == [("a", 4), ("b", 2), ("b", 3)]
    assert total == 3


def test_a_modification_time_in_the_future_is_replaced_by_now(sqlite_records: Engine, tmp_path: Path) -> None:
    file = _write(tmp_path / "stock.csv", [("a", "2")])
    ahead = time.time() + 86_400
    os.utime(file, (ahead, ahead))
    import_file(file, sqlite_records, BUCKET)
    with sqlite_records.connect() as connection:
        assert connection.execute(select(Expectation.modified_at)).scalar_one() <= datetime.now(UTC)
    with pytest.raises(BinwatchError, match="is in the future"):
        import_file(file, sqlite_records, BUCKET, as_of=datetime.now(UTC) + timedelta(hours=1))


def test_several_chunks_of_rows_and_columns_in_any_order(records_engine: Engine, tmp_path: Path) -> None:
    rows = [("x", str(number % 7), f"bin {number}") for number in range(CHUNK_ROWS + 1)]
    file = tmp_path / "stock.csv"
    with file.open("w", encoding="utf-8-sig", newline="") as opened:
        csv.writer(opened).writerows([("note", " Quantity", "BIN"), *rows])
    assert import_file(file, records_engine, BUCKET).recorded == CHUNK_ROWS + 1
    assert not (tmp_path / "stock.csv.refused.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column was recognised as the bin, only nothing"),
        (b"bin,amount\n1,2\n", "no column was recognised as the quantity, only 'bin', 'amount'"),
        (b'bin,quantity\n"a,2\n', "is not a CSV"),
    ],
)
def test_a_file_without_a_table_is_an_error(
    sqlite_records: Engine, tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "stock.csv"
    file.write_bytes(content)
    with pytest.raises(BinwatchError, match=message):
        import_file(file, sqlite_records, BUCKET)
    assert _rows(sqlite_records) == 0


def test_every_refusal_is_documented() -> None:
    operations = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    table = operations.split("| reason | the row |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(Refusal)


def test_short_and_empty_lines(sqlite_records: Engine, tmp_path: Path) -> None:
    file = tmp_path / "stock.csv"
    file.write_text("bin,quantity\na\n\nb,1\n", encoding="utf-8")
    report = import_file(file, sqlite_records, BUCKET)
    assert report.recorded == 1
    assert report.refused == {Refusal.NO_QUANTITY: 1}


def test_a_missing_file_is_named(sqlite_records: Engine, tmp_path: Path) -> None:
    with pytest.raises(BinwatchError, match=r"none\.csv"):
        import_file(tmp_path / "none.csv", sqlite_records, BUCKET)


def test_parquet(sqlite_records: Engine, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"bin": ["00001", "00002", None, "00003"], "quantity": [1.0, float("nan"), 3.0, None]})
    file = tmp_path / "stock.parquet"
    parquet.write_table(table, file)
    report: InventoryReport = import_file(file, sqlite_records, BUCKET)
    assert _quantities(sqlite_records) == {"00001": 1}
    assert report.refused == {Refusal.NOT_A_NUMBER: 1, Refusal.NO_BIN: 1, Refusal.NO_QUANTITY: 1}


PROGRAM = """
import sys
from pathlib import Path
from binwatch.records.engine import connect
from binwatch.inventory import importing, reading
from monitor import formatting
reading.MAX_LISTED_ROWS = 50
report = importing.import_file(Path(sys.argv[1]), connect(sys.argv[2]), "b")
print(formatting.imported(report))
status = dict(line.split(':') for line in Path('/proc/self/status').read_text().splitlines())
print(int(status['VmHWM'].split()[0]) // 1024)  # unlike ru_maxrss, not that of the process that started this one
"""
MAX_MEMORY_MB = 300
"""Memory limit of the importing process; half of it is taken by pyarrow and SQLAlchemy."""


def test_parquet_in_other_encodings(sqlite_records: Engine, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    expected = {f"{number:05}": number % 7 for number in range(3000)}
    columns = {"bin": list(expected), "quantity": [str(quantity) for quantity in expected.values()]}
    for number, (kind, encoding) in enumerate(
        [("string", "DELTA_BYTE_ARRAY"), ("large_string", "DELTA_LENGTH_BYTE_ARRAY"), ("string", "PLAIN")]
    ):
        table = pyarrow.table({name: pyarrow.array(values, kind) for name, values in columns.items()})
        file = tmp_path / f"{number}.parquet"
        parquet.write_table(table, file, use_dictionary=False, column_encoding=dict.fromkeys(columns, encoding))
        assert import_file(file, sqlite_records, f"bucket-{number}").recorded == 3000
    assert _quantities(sqlite_records) == expected


@pytest.mark.parametrize("column", ["refused", "repeated", "a long text"])
def test_a_small_file_with_very_many_rows_uses_little_memory(
    sqlite_records: Engine, tmp_path: Path, column: str
) -> None:
    """The files have a few kilobytes; as Python objects, the rows of each would take more than a gigabyte."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows, text, quantity = {
        "refused": (1_000_000, "bin", -1),
        "repeated": (1_000_000, "bin", 1),
        "a long text": (20_000, "x" * 100_000, 1),
    }[column]
    indices = pyarrow.array([0] * rows, pyarrow.int32())
    bins = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([text]))
    file = tmp_path / "stock.parquet"
    parquet.write_table(pyarrow.table({"bin": bins, "quantity": [quantity] * rows}), file, compression="zstd")
    assert file.stat().st_size < 100_000
    command = [sys.executable, "-c", PROGRAM, str(file), str(sqlite_records.url)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=200)
    *lines, peak = done.stdout.splitlines()
    recorded = 1 if column == "repeated" else 0
    refused = {
        "refused": "negative (row 1, 'bin', …)",
        "repeated": "duplicate (row 2, 'bin', …)",
        "a long text": f"bad bin (row 1, '{'x' * 60}', …)",
    }[column]
    without = ", 1 does not ('bin')" if recorded else ""
    assert lines == [
        f"{file}: bin from 'bin', quantity from 'quantity'",
        f"{rows:,} rows: 0 match a photo{without}, {rows - recorded:,} refused",
        f"refused: {rows - recorded:,} {refused}; the first 50 of them listed in {file}.refused.csv",
        f"{recorded} bin{'s' * (recorded != 1)} recorded, 0 known from an earlier import",
    ], done.stderr
    listed = Path(f"{file}.refused.csv").read_text(encoding="utf-8").splitlines()
    assert len(listed) == 51
    assert max(map(len, listed)) < 1100
    assert int(peak) < MAX_MEMORY_MB


def test_an_excessively_large_row_or_column_is_refused(
    sqlite_records: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for number, row in enumerate(["," * 2**20, '"a\n",' * 2**19]):
        file = tmp_path / f"{number}.csv"
        file.write_text(f"bin,quantity\na,1\n{row}\n")
        with pytest.raises(BinwatchError, match=r"is not a CSV .*a row of more than 1,048,576 characters"):
            import_file(file, sqlite_records, BUCKET)
    file = tmp_path / "stock.parquet"
    parquet.write_table(pyarrow.table({"bin": ["x" * 5000], "quantity": [1]}), file)
    monkeypatch.setattr("binwatch.inventory.parquet.MAX_COLUMN_BYTES", 4000)
    with pytest.raises(BinwatchError, match=r"column 'bin' has 5,\d+ bytes in one row group, over the limit of 4,000"):
        import_file(file, sqlite_records, BUCKET)
    parquet.write_table(pyarrow.table({"bin": ["x"], "quantity": [[1] * 1000]}), file)
    with pytest.raises(BinwatchError, match=r"column 'quantity' holds list<.*>, neither numbers nor text"):
        import_file(file, sqlite_records, BUCKET)


def test_parquet_with_numeric_bins_is_refused(sqlite_records: Engine, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "stock.parquet"
    parquet.write_table(pyarrow.table({"bin": [121], "quantity": [1]}), file)
    with pytest.raises(BinwatchError, match="would be the same bin"):
        import_file(file, sqlite_records, BUCKET)
    file.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(BinwatchError, match="is not a Parquet file"):
        import_file(file, sqlite_records, BUCKET)


def test_accents_in_bin_ids_may_be_in_nfc_or_nfd(sqlite_records: Engine, recorder: Recorder, tmp_path: Path) -> None:
    """macOS names files in NFD, inventories are in NFC. The name of the file itself need not be UTF-8 either."""
    recorder.count("bin-images/cafe\u0301.jpg", 3, bucket=BUCKET)
    file = _write(Path(os.fsdecode(bytes(tmp_path) + b"/sto\xe9k.csv")), [("caf\u00e9", "3"), ("cafe\u0301 ", "3")])
    report = import_file(file, sqlite_records, BUCKET)
    assert (report.recorded, report.refused) == (1, {Refusal.DUPLICATE: 1})
    assert add_audit(sqlite_records, BUCKET, "cafe\u0301", 3).expected == 3
    with sqlite_records.connect() as connection:
        assert connection.execute(select(Comparison.bin_id, Comparison.error)).all() == [("caf\u00e9", 0)]
        assert connection.execute(select(Expectation.source)).scalars().all() == ["sto\\udce9k.csv"]
        for name in ("caf\u00e9", "cafe\u0301"):
            assert read_bin(connection, BUCKET, name, 0.05).bin_id == "caf\u00e9"
            result = read_discrepancies(connection, Filters(direction=Direction.ALL, prefix=name), 0.05)
            assert [item.bin_id for item in result.items] == ["caf\u00e9"]
            prefix = f"bin-images/{name}"
            result = read_discrepancies(connection, Filters(direction=Direction.ALL, prefix=prefix), 0.05)
            assert [item.bin_id for item in result.items] == ["caf\u00e9"]


@pytest.mark.parametrize("name", ["caf\udce9", "a\0b"])
def test_a_bin_id_that_no_database_can_store_is_unknown(sqlite_records: Engine, name: str) -> None:
    """For example from a command-line argument that is not UTF-8."""
    with pytest.raises(UnknownBin):
        add_audit(sqlite_records, BUCKET, name, 3)
