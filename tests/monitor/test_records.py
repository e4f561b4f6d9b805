"""Reading the records: deadlines for a hanging database and protection against accidental writes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, Engine, func, select, text

from binwatch.records.audits import add_audit
from binwatch.records.engine import connect, for_writing
from binwatch.records.tables import Count
from monitor import records as module
from monitor.records import MAX_READERS, Records, RecordsDown, WritableRecords
from testing.services.postgres import Postgres
from tests.monitor.conftest import Recorder
from tests.monitor.drifting import BUCKET


def _counts(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(Count)).scalar_one()


@pytest.fixture
def records(sqlite_records: Engine) -> Records:
    return Records(sqlite_records.url.render_as_string(hide_password=False))


def test_hanging_reads_time_out_and_others_proceed(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.2)
    release = threading.Event()
    try:
        with pytest.raises(RecordsDown, match=r"no answer within 0\.2 s"):
            records.read(lambda _: release.wait(60))
        assert records.read(_counts) == 0
    finally:
        release.set()


def test_a_hanging_database_blocks_few_threads_and_recovers(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.1)
    release = threading.Event()
    before = threading.active_count()
    for _ in range(MAX_READERS + 3):
        with pytest.raises(RecordsDown):
            records.read(lambda _: release.wait(60))
    assert threading.active_count() - before <= MAX_READERS
    release.set()
    monkeypatch.setattr(module, "DEADLINE_S", 30.0)
    monkeypatch.setattr(module, "OUTAGE_WAIT_S", 30.0)
    assert records.read(_counts) == 0


def test_reads_fail_fast_while_the_database_hangs(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.1)
    release = threading.Event()
    try:
        for _ in range(MAX_READERS):
            with pytest.raises(RecordsDown, match="no answer within"):
                records.read(lambda _: release.wait(60))
        monkeypatch.setattr(module, "DEADLINE_S", 30.0)
        with pytest.raises(RecordsDown, match="earlier reads are still waiting for an answer"):
            records.read(_counts)
    finally:
        release.set()


def test_a_read_is_a_consistent_snapshot(records: Records, sqlite_records: Engine) -> None:
    recorder = Recorder(sqlite_records)

    def read(connection: Connection) -> tuple[int, int]:
        before = _counts(connection)
        recorder.count("a.jpg", 1)
        return before, _counts(connection)

    assert records.read(read) == (0, 0)
    assert records.read(_counts) == 1


def test_a_file_with_an_odd_name_is_opened(tmp_path: Path, sqlite_records: Engine) -> None:
    sqlite_records.dispose()
    odd = tmp_path / "a b%41#ü.db"
    (tmp_path / "records.db").rename(odd)
    url = URL.create("sqlite", database=str(odd)).render_as_string()
    assert Records(url).read(_counts) == 0
    assert {path.name for path in tmp_path.iterdir()} == {odd.name}


def test_postgresql_is_read_only_with_time_limits_and_one_snapshot(postgres_url: str) -> None:
    records = Records(postgres_url)
    expected = {"statement_timeout": "4s", "transaction_isolation": "repeatable read", "transaction_read_only": "on"}
    for name, value in expected.items():
        assert records.read(lambda connection, name=name: connection.execute(text(f"SHOW {name}")).scalar()) == value
    with pytest.raises(RecordsDown, match="read-only transaction"):
        records.read(lambda connection: connection.execute(text("DELETE FROM counts")))


def test_a_stopped_postgresql_is_an_outage_and_recovers(postgres: object, postgres_url: str) -> None:
    records = Records(postgres_url)
    assert records.read(_counts) == 0
    with pytest.raises(RecordsDown, match="terminating connection"):
        records.read(lambda connection: connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())")))
    assert records.read(_counts) == 0


def test_an_audit_waits_briefly_for_a_locked_file(sqlite_records: Engine) -> None:
    Recorder(sqlite_records).pair("a", predicted=1, expected=1)
    writable = WritableRecords(sqlite_records.url.render_as_string())
    with for_writing(sqlite_records).begin(), pytest.raises(RecordsDown, match="locked"):
        writable.write(lambda engine: add_audit(engine, BUCKET, "a", 2))
    assert writable.write(lambda engine: add_audit(engine, BUCKET, "a", 2)).is_new


def test_an_audit_does_not_wait_for_a_postgresql_that_hangs(postgres: Postgres, postgres_url: str) -> None:
    recorder, writable = Recorder(connect(postgres_url)), WritableRecords(postgres_url)
    recorder.pair("a", predicted=1, expected=1)
    recorder.engine.dispose()
    assert writable.write(lambda engine: add_audit(engine, BUCKET, "a", 2)).is_new
    postgres.pause()
    try:
        with pytest.raises(RecordsDown, match=r"cannot be written: .*timeout"):
            writable.write(lambda engine: add_audit(engine, BUCKET, "a", 3))
    finally:
        postgres.resume()
    assert writable.write(lambda engine: add_audit(engine, BUCKET, "a", 3)).is_new
