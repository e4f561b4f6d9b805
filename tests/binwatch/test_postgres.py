"""PostgreSQL in production setups: with unusual defaults, behind pgbouncer, with options in the URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, event, func, select, text

from binwatch.errors import BinwatchError, SettingsError
from binwatch.records.audits import add_audit
from binwatch.records.crash_counts import CrashCounts
from binwatch.records.engine import DriverError, connect
from binwatch.records.migrate import migrate
from binwatch.records.schema import check_schema
from binwatch.records.store import NewCount, NewExpectation, RecordsNotWritable, Store
from binwatch.records.tables import Comparison, Count
from binwatch.settings import Settings
from monitor.records import Records, WritableRecords
from testing.services.postgres import Postgres
from worker.provisioning import migrate_records

WHEN = datetime(2026, 5, 4, 3, 2, 1, 123456, UTC)
SHARES = [0.1 + 0.2, 1 / 3, 1e-300, 0.25, 0.0, 0.0, 0.0]
FOREIGN = {
    "DateStyle": "SQL, DMY",
    "TimeZone": "Asia/Kathmandu",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "2s",
    "lock_timeout": "1ms",
    "search_path": "warehouse",
}
"""Unusual defaults of a database or a role."""


def count(key: str, **fields: Any) -> NewCount:
    fields_ = {"bucket": "b", "etag": "e", "model_version": "m", "precision": "fp32", "provider": "cpu"}
    return NewCount(**(fields_ | {"key": key, "modified_at": WHEN, "predicted": 3, "probabilities": SHARES} | fields))


def expectation(bin_id: str) -> NewExpectation:
    return NewExpectation(bucket="b", bin_id=bin_id, source="s", etag="e", modified_at=WHEN, quantity=2)


@pytest.fixture
def foreign_url(postgres: Postgres, postgres_empty_url: str) -> str:
    """Return the URL of an empty database with unusual defaults."""
    name = postgres_empty_url.partition("@/")[2].partition("?")[0]
    plain = connect(postgres_empty_url)
    with plain.begin() as connection:
        connection.execute(text("CREATE SCHEMA warehouse"))
    plain.dispose()
    for setting, value in FOREIGN.items():
        postgres.execute(f"ALTER DATABASE {name} SET {setting} TO '{value}'")
    return postgres_empty_url


@pytest.fixture(params=["straight", "pgbouncer"])
def via(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function that maps a database URL to the URL to connect to: direct or through pgbouncer."""
    if request.param == "straight":
        return lambda url: url
    result: Callable[[str], str] = request.getfixturevalue("pgbouncer")
    return result


@pytest.fixture
def foreign(foreign_url: str, via: Callable[[str], str]) -> Iterator[Engine]:
    engine = connect(via(foreign_url))
    yield engine
    engine.dispose()


def test_values_round_trip_whatever_the_defaults_of_the_database(foreign: Engine) -> None:
    migrate(foreign)
    check_schema(foreign)
    store = Store(foreign)
    store.check()
    key = r"bin-images/grün \n 'a'.jpg"
    assert store.add_counts([count(key, embedding=bytes(range(256)), brightness=1 / 3)]) == 1
    assert store.add_expectations([expectation(r"grün \n 'a'")]) == 1
    with foreign.connect() as connection:
        row = connection.execute(select(Count.__table__)).mappings().one()
        shown = {name: connection.scalar(text(f"SHOW {name}")) for name in FOREIGN}
    assert (row["key"], row["modified_at"], row["probabilities"]) == (key, WHEN, SHARES)
    assert (row["embedding"], row["brightness"]) == (bytes(range(256)), 1 / 3)
    assert row["modified_at"].utcoffset() == timedelta(0)
    assert (shown["statement_timeout"], shown["lock_timeout"]) == ("0", "0")
    assert (shown["default_transaction_isolation"], shown["search_path"]) == ("serializable", "warehouse")


def test_the_monitor_works_with_foreign_defaults(foreign: Engine) -> None:
    migrate(foreign)
    Store(foreign).add_counts([count("a.jpg")])
    Store(foreign).add_expectations([expectation("a")])
    url = foreign.url.render_as_string(hide_password=False)
    records = Records(url)
    records.check()
    expected = {"statement_timeout": "4s", "transaction_isolation": "repeatable read", "transaction_read_only": "on"}
    expected |= {"DateStyle": "ISO, MDY", "TimeZone": "UTC"}
    assert expected == records.read(lambda connection: {n: connection.scalar(text(f"SHOW {n}")) for n in expected})
    assert records.read(lambda connection: connection.scalar(select(func.count()).select_from(Comparison))) == 1
    assert WritableRecords(url).write(lambda engine: add_audit(engine, "b", "a", 2)).is_new
    records.close()


def test_settings_do_not_leak_to_other_clients_of_pgbouncer(postgres_url: str, pgbouncer: Callable[[str], str]) -> None:
    """All clients share two server connections."""
    names = ("statement_timeout", "lock_timeout", "default_transaction_read_only", "default_transaction_isolation")

    def shown(url: str) -> list[list[object]]:
        address = url.replace("postgresql:", "postgres:")
        with psycopg.connect(address, autocommit=True, prepare_threshold=None) as client:
            return [[client.execute(f"SHOW {name}").fetchone() for name in names] for _ in range(4)]

    before = shown(postgres_url)
    records = Records(pgbouncer(postgres_url))
    for _ in range(4):
        assert records.read(lambda connection: connection.scalar(text("SHOW statement_timeout"))) == "4s"
    assert shown(pgbouncer(postgres_url)) == before
    records.close()


def test_many_threads_share_two_pgbouncer_connections(
    postgres: Postgres, postgres_url: str, pgbouncer: Callable[[str], str]
) -> None:
    """A statement that psycopg prepared after five uses could belong to another client."""
    log = postgres.folder / "log"
    before = log.stat().st_size
    engine = connect(pgbouncer(postgres_url))
    store, crash_counts = Store(engine), CrashCounts(engine)

    def work(thread: int) -> None:
        for number in range(12):
            name = f"{thread}-{number}"
            assert crash_counts.begin("b", name) == 0
            assert store.add_counts([count(f"{name}.jpg")]) == 1
            assert store.add_expectations([expectation(name)]) == 1
            crash_counts.end("b", name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(Comparison)) == 48
    assert "ERROR:" not in log.read_text()[before:], "a statement has failed"
    engine.dispose()


def test_statements_are_prepared_if_the_url_asks_for_it(postgres_url: str) -> None:
    for options, expected in {
        "": 0,
        "&prepare_threshold=none": 0,
        "&prepare_threshold=0": 1,
        "&prepare_threshold=5": 0,
    }.items():
        engine = connect(postgres_url + options)
        with engine.begin() as connection:
            assert connection.scalar(select(func.count()).select_from(Count)) == 0
            prepared = connection.scalar(
                text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%counts%'")
            )
        assert (options, min(prepared, 1)) == (options, expected)
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://h/x?prepare_threshold=often", "prepare_threshold is the number of uses"),
        ("postgresql://h/x?prepare_threshold=-1", "prepare_threshold is the number of uses"),
        ("postgresql://h/x?autocommit=true", "autocommit cannot be set"),
        ("postgresql://h/x?row_factory=dict", "row_factory cannot be set"),
        ("postgresql://h/x?ssl=true", "ssl"),
        ("postgresql://u:ge@heim@h/x", "%40 for @"),
        ("postgresql://u:ge@he/im@h/x", "%40 for @"),
        ("postgresql://u:ge@heim:1@h/x", "%40 for @"),
        ("postgresql://u:geheim@h:port/x", "is not a database URL"),
        ("postgresql://u:ge#heim:5432/x", "is not a database URL"),
        ("sqlite:///x.db?timeout=geheim", "could not convert"),
        ("sqlite:///x.db?journal=wal", "SQLite has no option 'journal'"),
    ],
)
def test_invalid_url_options_are_refused_without_showing_the_password(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=r"^BINWATCH_DATABASE_URL") as refused:
        connect(url)
    assert words in str(refused.value)
    assert "heim" not in str(refused.value) or "timeout" in url


@pytest.mark.parametrize("password", ["a#b", "a%23b", "a/b?c:d", "%40%3A%2F", "grün"])
def test_escaped_passwords_are_accepted(password: str) -> None:
    url = connect(f"postgresql://u:{password}@h:5433/x?sslmode=require&application_name=a").url
    assert (url.host, url.port, url.database) == ("h", 5433, "x")
    assert url.password == {"a%23b": "a#b", "%40%3A%2F": "@:/"}.get(password, password)


def test_driver_errors_that_are_not_database_errors_are_wrapped(postgres_url: str, tmp_path: Path) -> None:
    """psycopg cannot read a timestamp in another DateStyle, and SQLite's driver cannot bind a number above 64 bits."""
    engine = connect(postgres_url)
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL DateStyle TO 'SQL, DMY'"))
        with pytest.raises(DriverError, match=r"NotImplementedError: .*DateStyle"):
            connection.execute(text("SELECT now()")).all()
    engine.dispose()
    sqlite = connect(f"sqlite:///{tmp_path / 'x.db'}")
    with sqlite.connect() as connection, pytest.raises(DriverError, match="OverflowError"):
        connection.execute(text("SELECT :n"), {"n": 2**70})
    sqlite.dispose()


def test_check_fails_if_values_are_returned_changed(records_engine: Engine) -> None:
    Store(records_engine).check()
    if records_engine.dialect.name == "sqlite":
        return
    event.listen(records_engine, "begin", lambda c: c.exec_driver_sql("SET LOCAL extra_float_digits TO -15"))
    with pytest.raises(RecordsNotWritable, match=r"returns .*0\.3.* for .*0\.30000000000000004"):
        Store(records_engine).check()


def test_a_missing_schema_permission_is_explained_in_one_line(postgres_empty_url: str, postgres: Postgres) -> None:
    """PostgreSQL raises it while connecting, without a statement, and it is not an outage."""
    name = postgres_empty_url.partition("@/")[2].partition("?")[0]
    postgres.execute(f"ALTER DATABASE {name} SET search_path TO 'nowhere'")
    settings = Settings(database_url=SecretStr(postgres_empty_url))
    with pytest.raises(
        BinwatchError, match=r"^the database cannot be used: no schema has been selected to create in"
    ) as e:
        migrate_records(settings)
    assert len(str(e.value).splitlines()) == 1
