"""Explanations of database errors for operators, such as missing permissions and wrong addresses."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.problems import ROLES, explain
from binwatch.records.schema import check_schema
from binwatch.records.store import Store

ROOT = Path(__file__).parents[2]


def problem(url: str, statement: str = "SELECT 1") -> str:
    """Run a failing statement and return the explanation of its error."""
    engine = connect(url)
    try:
        with pytest.raises(SQLAlchemyError) as raised, engine.begin() as connection:
            connection.execute(text(statement))
        return explain(raised.value, engine)
    finally:
        engine.dispose()


@pytest.fixture
def as_reader(postgres_url: str) -> str:
    """Return the URL of the records for a role that may read all tables but one, and write none."""
    owner = connect(postgres_url)
    with owner.begin() as connection:
        if connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = 'only_reads'")).one_or_none() is None:
            connection.execute(text("CREATE ROLE only_reads LOGIN"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO only_reads"))
        connection.execute(text("REVOKE SELECT ON audits FROM only_reads"))
    owner.dispose()
    return make_url(postgres_url).set(username="only_reads").render_as_string(hide_password=False)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT * FROM audits", "lacks permission to SELECT: permission denied for table audits"),
        ("INSERT INTO models VALUES ('x')", "lacks permission to INSERT: permission denied for table models"),
        ("UPDATE bins SET photo_state = NULL", "lacks permission to UPDATE: permission denied for table bins"),
        ("DROP TABLE counts", "lacks permission to DROP: must be owner of table counts"),
    ],
)
def test_a_missing_permission_is_named(as_reader: str, statement: str, expected: str) -> None:
    explanation = problem(as_reader, statement)
    assert explanation.startswith(
        f"the role 'only_reads' {expected}; {ROLES}, run by the tables' owner after each migrate, grants"
    )
    assert "BINWATCH_DATABASE_URL" not in explanation, "the address is right"


def test_a_worker_without_permissions_reports_them(as_reader: str) -> None:
    engine = connect(as_reader)
    check_schema(engine)
    with pytest.raises(SQLAlchemyError) as raised:
        Store(engine).check()
    assert explain(raised.value, engine).startswith(
        "the role 'only_reads' lacks permission to UPDATE: permission denied"
    )
    engine.dispose()


def test_only_the_owner_migrates(postgres_empty_url: str, as_reader: str) -> None:
    url = make_url(as_reader).set(database=make_url(postgres_empty_url).database)
    engine = connect(url.render_as_string(hide_password=False))
    with pytest.raises(SQLAlchemyError) as raised:
        migrate(engine)
    explanation = explain(raised.value, engine)
    assert "lacks permission to CREATE: permission denied for schema public" in explanation
    assert "migrate itself needs the tables' owner" in explanation
    engine.dispose()


def test_a_missing_role_or_database_is_explained(postgres_url: str) -> None:
    url = make_url(postgres_url)
    nobody = problem(url.set(username="nobody-here").render_as_string(hide_password=False))
    assert nobody.endswith(f"; {ROLES} creates the roles binwatch_worker and binwatch_monitor (docs/servers.md)")
    nowhere = problem(url.set(database="nowhere").render_as_string(hide_password=False))
    assert nowhere.endswith("; create it, or correct its name in BINWATCH_DATABASE_URL")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ('FATAL:  password authentication failed for user "binwatch_worker"', "correct the role or its password in"),
        ("fe_sendauth: no password supplied", "correct the role or its password in"),
        (
            'FATAL:  Peer authentication failed for user "binwatch_worker"',
            "map the operating system's user to that role in pg_ident.conf",
        ),
        ('FATAL:  role "binwatch_worker" is not permitted to log in', f"{ROLES} creates roles that are"),
        ("connection refused", "BINWATCH_DATABASE_URL is not set"),
    ],
)
def test_refusals_that_the_test_server_does_not_produce(words: str, remedy: str) -> None:
    engine = connect("postgresql://binwatch_worker:geheim@db.example.com/binwatch")
    explanation = explain(OperationalError("", {}, Exception(words)), engine)
    assert explanation.startswith(f"{' '.join(words.split())}; {remedy}")
    assert "geheim" not in explanation


def test_the_script_in_the_advice_exists() -> None:
    assert (ROOT / ROLES).is_file()
