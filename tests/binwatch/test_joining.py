"""Bins that earlier releases had twice, since their ids were written in two ways, are joined."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from sqlalchemy import Engine, select, text

from binwatch.bin_naming import BinNaming
from binwatch.records import audits as audits_module
from binwatch.records.audits import add_audit
from binwatch.records.engine import WRITE, connect
from binwatch.records.joining import join_bins
from binwatch.records.migrate import migrate
from binwatch.records.store import Store
from binwatch.records.tables import Audit, Bin, BinTotal, Comparison, Count, CurrentComparison, Expectation, RankTotal
from tests.binwatch.test_records import assert_totals_follow_from_the_ledgers, count, expectation, rows

NFC, NFD = "caf\u00e9", "cafe\u0301"


class ByStem(BinNaming):
    """How releases before told a photo's bin."""

    def __call__(self, key: str) -> str:
        return PurePosixPath(key).stem


@pytest.fixture
def before(records_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Records as releases before wrote them, where a bin's id was the key's stem as it was written."""
    with monkeypatch.context() as patch:
        patch.setattr(audits_module, "one_bin_id", lambda name: name)
        store = Store(records_engine, ByStem())
        store.add_counts([count(f"bin-images/{NFD}.jpg", minutes=2), count("bin-images/00001.jpg", minutes=1)])
        store.add_expectations([expectation(3, NFC, minutes=1), expectation(2, "00001", minutes=1)])
        # Two photos, and an expected quantity that the inventory has of both ids.
        store.add_counts([count("b .jpg", "old", minutes=1), count("b.jpg", "new", minutes=5)])
        store.add_expectations([expectation(n, name, source="stock.csv") for n, name in ((5, "b "), (5, "b"))])
        store.add_counts([count("c.jpg.jpg", predicted=4)])
        add_audit(records_engine, "binwatch", NFD, 3)
        add_audit(records_engine, "binwatch", "b ", 4)
    return records_engine


def join(engine: Engine) -> int:
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        return join_bins(connection)


def test_photos_and_metadata_of_one_bin_meet(before: Engine) -> None:
    assert {row.bin_id for row in rows(before, Bin)} == {NFC, NFD, "00001", "b", "b ", "c.jpg"}
    assert join(before) == 3
    assert {row.bin_id for row in rows(before, Bin)} == {NFC, "00001", "b", "c"}
    compared = {row.bin_id: (row.predicted, row.expected) for row in rows(before, CurrentComparison)}
    assert compared == {NFC: (3, 3), "00001": (3, 2), "b": (3, 5)}
    with before.connect() as connection:
        shown = select(Bin.bin_id, Count.etag).join(Count).order_by(Bin.bin_id)
        assert {row.bin_id: row.etag for row in connection.execute(shown)} == {
            "00001": "a",
            "b": "new",
            "c": "a",
            NFC: "a",
        }
    for table in (Count, Comparison, Audit):
        assert {row.bin_id for row in rows(before, table)} <= {NFC, "00001", "b", "c"}
    assert len(rows(before, Expectation)) == 4


def test_the_sums_stay_right_and_joining_again_changes_nothing(before: Engine) -> None:
    join(before)
    for _ in range(2):
        assert_totals_follow_from_the_ledgers(before)
        bins = {(row.photo_state, row.quantity_state): row.bins for row in rows(before, BinTotal) if row.bins}
        assert bins == {("counted", "known"): 3, ("counted", "none"): 1}
        assert {row.kind: row.bins for row in rows(before, RankTotal)} == {"uncalibrated": 3}
        assert join(before) == 0
    audits = {row.bin_id: row.audit_id is not None for row in rows(before, CurrentComparison)}
    assert audits == {NFC: True, "00001": False, "b": False}


def test_new_records_meet_the_old_ones(before: Engine) -> None:
    join(before)
    store = Store(before)
    store.add_counts([count(f"bin-images/{NFD}.jpg", "newer", minutes=9, predicted=5)])
    (row,) = [row for row in rows(before, CurrentComparison) if row.bin_id == NFC]
    assert (row.predicted, row.expected) == (5, 3)
    assert add_audit(before, "binwatch", NFD, 5).predicted == 5
    assert add_audit(before, "binwatch", f" {NFC}", 5).is_new is False


def test_migrating_joins_what_was_there(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'old.db'}")
    migrate(engine, "0005")
    values = "(1, 'b', :key, 'e', :bin, 'm', 'int8', 'cpu', 3, '2026-01-01', '2026-01-01')"
    columns = "id, bucket, key, etag, bin_id, model_version, precision, provider, predicted, modified_at, recorded_at"
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO counts ({columns}) VALUES {values}"), {"key": f"{NFD}.jpg", "bin": NFD})
        connection.execute(text("INSERT INTO bins (bucket, bin_id, count_id) VALUES ('b', :bin, 1)"), {"bin": NFD})
    migrate(engine)
    assert [row.bin_id for row in rows(engine, Bin)] == [NFC]
    assert [row.bin_id for row in rows(engine, Count)] == [NFC]
    engine.dispose()
