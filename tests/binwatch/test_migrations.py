"""The schema: migrations produce the tables of the models, also when several run at once. On both databases."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from binwatch.errors import BinwatchError, SettingsError
from binwatch.records.engine import connect, sqlite_url
from binwatch.records.migrate import migrate
from binwatch.records.schema import HEAD, check_schema, prepare_sqlite
from binwatch.records.tables import Base


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("postgres_empty_url")
    return url


def test_migrations_lead_to_the_models(records_engine: Engine) -> None:
    with records_engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_twice_changes_nothing(records_engine: Engine) -> None:
    before = sorted(inspect(records_engine).get_table_names())
    migrate(records_engine)
    assert sorted(inspect(records_engine).get_table_names()) == before
    assert set(before) == {*Base.metadata.tables, "alembic_version"}


def test_a_new_sqlite_database_gets_the_same_schema_as_by_migrations(tmp_path: Path) -> None:
    made, migrated = (connect(f"sqlite:///{tmp_path / name}.db") for name in ("made", "migrated"))
    prepare_sqlite(made)
    assert migrate(migrated).after == HEAD
    for engine in (made, migrated):
        check_schema(engine)
    assert _schema(made) == _schema(migrated)
    prepare_sqlite(made)
    assert _schema(made) == _schema(migrated)
    for engine in (made, migrated):
        engine.dispose()


def test_a_sqlite_database_of_an_earlier_release_is_migrated(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'earlier.db'}")
    assert migrate(engine, "0008").after == "0008"
    prepare_sqlite(engine)
    check_schema(engine)
    engine.dispose()


def _schema(engine: Engine) -> dict[str, object]:
    """Read the columns, indexes and constraints of each table in a canonical order."""
    result = inspect(engine)
    return {
        name: [
            sorted(
                (item["name"], str(item["type"]), item["nullable"], item["primary_key"])
                for item in result.get_columns(name)
            ),
            result.get_pk_constraint(name)["constrained_columns"],
            sorted((str(item["name"]), item["column_names"]) for item in result.get_unique_constraints(name)),
            sorted((item["constrained_columns"], item["referred_table"]) for item in result.get_foreign_keys(name)),
            sorted(_indexes(engine, name)),
        ]
        for name in result.get_table_names()
    }


def _indexes(engine: Engine, table: str) -> list[str]:
    with engine.connect() as connection:
        statement = text("SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :name AND sql IS NOT NULL")
        return [str(row[0]) for row in connection.execute(statement, {"name": table})]


def test_check_schema_accepts_only_the_current_revision(empty_url: str) -> None:
    engine = connect(empty_url)
    with pytest.raises(
        BinwatchError, match=r"has schema none, this release needs \d{4}; run: python -m worker migrate"
    ):
        check_schema(engine)
    migrate(engine)
    check_schema(engine)
    engine.dispose()


def test_the_result_of_a_migration_lists_its_steps(empty_url: str) -> None:
    engine = connect(empty_url)
    first = migrate(engine, "0008")
    assert (first.before, first.after, len(first.steps)) == (None, "0008", 1)
    assert str(first) == "the schema went from none to 0008 in 1 step:\n  0008 The tables"
    second = migrate(engine)
    numbers = [step.split()[0] for step in second.steps]
    assert (second.before, numbers) == ("0008", [f"{number:04}" for number in range(9, int(numbers[-1]) + 1)])
    steps = "1 step" if len(numbers) == 1 else f"{len(numbers)} steps"
    assert str(second).startswith(f"the schema went from 0008 to {numbers[-1]} in {steps}:\n  0009 ")
    repeated = migrate(engine)
    assert (repeated.steps, str(repeated)) == ((), f"the schema is already at {numbers[-1]}: nothing to do")
    engine.dispose()


def test_the_schema_of_a_newer_release_is_refused(empty_url: str) -> None:
    engine = connect(empty_url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for refuses in (migrate, check_schema):
        with pytest.raises(
            BinwatchError, match=r"has schema 9999, which this release does not know .*a dump from before"
        ):
            refuses(engine)
    engine.dispose()


def test_a_schema_older_than_the_first_migration_is_refused(empty_url: str) -> None:
    engine = connect(empty_url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0007'"))
    for refuses in (migrate, check_schema):
        with pytest.raises(BinwatchError, match=r"has schema 0007, which .* cannot upgrade .* a new database"):
            refuses(engine)
    engine.dispose()


BEFORE_0012 = (
    "INSERT INTO counts (id, bucket, key, etag, bin_id, model_version, precision, provider, predicted, reason,"
    " modified_at, recorded_at) VALUES (1, 'b', 'a.jpg', '1', 'a', 'm', 'int8', 'cpu', 3, NULL, :at, :at),"
    " (2, 'b', 'a.jpg', '2', 'a', 'm', 'int8', 'cpu', 6, NULL, :at, :at)",
    "INSERT INTO expectations (id, bucket, bin_id, source, etag, quantity, modified_at, recorded_at) VALUES"
    " (1, 'b', 'a', 's', '1', 4, :at, :at), (2, 'b', 'a', 's', '2', 4, :at, :at),"
    " (3, 'b', 'c', 's', '3', 40, :at, :at)",
    # Audits of the first photo, twice, the second time after the inventory repeated its quantity; of the second; of a
    # bin without a photo.
    "INSERT INTO audits (id, bucket, bin_id, quantity, count_id, expectation_id, audited_at) VALUES"
    " (1, 'b', 'a', 4, 1, 1, :at), (2, 'b', 'a', 3, 1, 2, :at), (3, 'b', 'a', 4, 2, 2, :at),"
    " (4, 'b', 'c', 17, NULL, 3, :at), (5, 'b', 'a', 6, 2, NULL, :at)",
    "INSERT INTO audit_totals VALUES ('inventory', '', 3, 'over', 1, 1, 1, 1, :at)",
    "INSERT INTO comparison_totals VALUES ('m', 4, 'under', 1, 1, 1, 1, :at)",
    "INSERT INTO comparison_hours VALUES (:at, 'm', 'under', 1, 1, 1, 1, :at)",
    "INSERT INTO confusion_totals VALUES ('inventory', 'm', 4, 3, 1, :at), ('audit', 'm', 3, 3, 1, :at),"
    " ('audit', 'm', 6, 6, 1, :at)",
)


def test_totals_survive_the_change_to_a_single_confusion_matrix(empty_url: str) -> None:
    engine = connect(empty_url)
    migrate(engine, "0011")
    with engine.begin() as connection:
        for statement in BEFORE_0012:
            connection.execute(text(statement), {"at": "2026-01-01 10:00:00.000000"})
    migrate(engine)
    columns = "reference, model_version, true_class, predicted_class, comparisons"
    with engine.connect() as connection:
        result = {tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM confusion_totals"))}
        hours = connection.execute(text("SELECT model_version, outcome, comparisons FROM comparison_hours")).all()
        audits = connection.execute(text("SELECT id, answer, quantity, reason, note, blind FROM audits")).all()
        entered = connection.execute(text("SELECT answer, blind, audits FROM audit_totals")).all()
    # Earlier audits were sighted.
    assert result == {
        ("inventory", "m", 4, 3, 1),
        ("sighted", "m", 3, 3, 1),
        ("sighted", "m", 6, 6, 1),
        ("sighted", "", 3, 4, 1),
        ("sighted", "", 4, 4, 1),
        ("sighted", "", 6, 6, 1),
    }
    quantities = {1: 4, 2: 3, 3: 4, 4: 17, 5: 6}
    assert {tuple(row) for row in audits} == {(id_, "count", n, None, None, False) for id_, n in quantities.items()}
    assert [tuple(row) for row in entered] == [("count", False, 5)]
    assert [tuple(row) for row in hours] == [("m", "under", 1)]
    engine.dispose()


def test_check_schema_shows_no_password() -> None:
    engine = connect("postgresql://someone:secret@127.0.0.1:1/records")
    assert "secret" not in repr(engine)
    engine.dispose()


PROGRAM = """
import sys
from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.schema import check_schema
engine = connect(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
migrate(engine)
check_schema(engine)
"""


def test_concurrent_migrations_by_processes(empty_url: str) -> None:
    """For example, a worker and a monitor start together on a new database."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", PROGRAM, empty_url]
    with ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(3)]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        errors = [process.communicate(timeout=60)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0], errors


def test_concurrent_migrations_by_threads(empty_url: str) -> None:
    engine = connect(empty_url)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [engine] * 4))
    check_schema(engine)
    engine.dispose()


@pytest.mark.parametrize("name", ["100%", "100%41", "what?now", "a#b&c=d @e:1+", "grün", os.fsdecode(b"caf\xe9")])
def test_sqlite_url_handles_special_file_names(tmp_path: Path, name: str) -> None:
    file = tmp_path / name / "records.db"
    file.parent.mkdir()
    engine = connect(sqlite_url(file))
    migrate(engine)
    check_schema(engine)
    engine.dispose()
    assert file.stat().st_size > 0
    assert list(tmp_path.iterdir()) == [file.parent]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "is not a database URL"),
        ("", "is not a database URL"),
        ("mysql://localhost/records", "'mysql' is not supported"),
        ("sqlit:///x.db", "'sqlit' is not supported"),
    ],
)
def test_invalid_urls_are_refused(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as refused:
        connect(url)
    assert "BINWATCH_DATABASE_URL" in str(refused.value)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:///x.db", "sqlite"),
        ("postgresql://localhost/records", "postgresql+psycopg"),
        ("postgres://localhost/records", "postgresql+psycopg"),
        ("postgresql+psycopg2://localhost/records", "postgresql+psycopg"),
    ],
)
def test_valid_urls_are_accepted(url: str, driver: str) -> None:
    assert connect(url).url.drivername == driver
