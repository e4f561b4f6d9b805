"""Tests of the database roles (deploy/postgres/roles.sql): each may do what its service does, and no more."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from binwatch.bundle import Calibration
from binwatch.errors import MetadataReason
from binwatch.records.audits import add_audit
from binwatch.records.crash_counts import CrashCounts
from binwatch.records.draws import draw
from binwatch.records.engine import connect
from binwatch.records.problems import explain
from binwatch.records.ranking import update_p_values
from binwatch.records.repeats import add_known_answers, next_bin_to_audit
from binwatch.records.schema import check_schema
from binwatch.records.settle_variances import decide
from binwatch.records.store import NewCount, NewExpectation, Store
from binwatch.records.tables import Base
from binwatch.records.variances import VarianceDecision
from binwatch.slicing import Slicing
from monitor.records import Records, WritableRecords
from monitor.slices import read_slices
from monitor.totals import read_totals
from tests.calibrations import category

ROLES = Path(__file__).parents[2] / "deploy" / "postgres" / "roles.sql"
OWNER = "binwatch"
DAY = datetime(2026, 1, 2, tzinfo=UTC)
LATER = DAY + timedelta(days=1)
LEDGERS = (
    "counts",
    "expectations",
    "comparisons",
    "audits",
    "audit_draws",
    "audit_repeats",
    "variances",
    "variance_trail",
    "drift_batches",
)
TABLES = sorted(table.name for table in Base.metadata.sorted_tables)


@dataclass
class Database:
    """A records database, accessed as any of its roles."""

    owner_url: str

    def url(self, role: str) -> str:
        return make_url(self.owner_url).set(username=role).render_as_string(hide_password=False)

    def make_roles(self, **passwords: str | None) -> subprocess.CompletedProcess[str]:
        all_passwords = {"WORKER_PASSWORD": "worker1", "MONITOR_PASSWORD": "it's"} | passwords
        environment = {name: password for name, password in all_passwords.items() if password is not None}
        psql = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(ROLES), self.owner_url]
        return subprocess.run(psql, env=os.environ | environment, capture_output=True, text=True, check=True)

    @contextmanager
    def engine(self, role: str) -> Iterator[Engine]:
        engine = connect(self.url(role))
        yield engine
        engine.dispose()


@pytest.fixture
def database(postgres_url: str) -> Database:
    database = Database(postgres_url)
    database.make_roles()
    database.make_roles()  # it must be repeatable, since every start runs it
    return database


def _count(key: str, model: str = "1") -> NewCount:
    return NewCount(
        bucket="binwatch", key=f"bin-images/{key}.jpg", etag=key, model_version=model, precision="fp32", provider="cpu",
        modified_at=DAY, predicted=2, probabilities=[0.1, 0.1, 0.6, 0.1, 0.05, 0.03, 0.02],
    )  # fmt: skip


def _expected(bin_id: str, quantity: int, source: str = "stock.csv") -> NewExpectation:
    return NewExpectation(
        bucket="binwatch", bin_id=bin_id, source=source, etag=str(quantity), modified_at=DAY, quantity=quantity
    )


def _rows(engine: Engine, query: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_worker_and_monitor_can_do_their_work(database: Database) -> None:
    all_quantities = category((0.3,) * 94 + (0.95,) * 5)
    with database.engine("binwatch_worker") as worker, database.engine("binwatch_monitor") as monitor:
        for engine in (worker, monitor):
            check_schema(engine)
        slicing = Slicing(re.compile("^([^/]+)/"))
        store = Store(worker, slicing=slicing)
        store.check()
        store.use_model("1", None)
        assert store.add_counts([_count("a"), _count("b")]) == 2
        assert store.add_counts([_count("a")]) == 0
        assert store.add_expectations([_expected("a", 2, "metadata/a.json")]) == 1
        crash_counts = CrashCounts(worker)
        assert crash_counts.begin("binwatch", "bin-images/a.jpg") == 0
        crash_counts.end("binwatch", "bin-images/a.jpg")

        assert Store(monitor).add_expectations([_expected("b", 3), _expected("a", 4), _expected("new", 1)]) == 3
        assert add_audit(monitor, "binwatch", "a", 2).of_count == "exact"
        assert add_audit(monitor, "binwatch", "a", 3, "Ada").of_count == "under"
        store.use_model("1", Calibration(photos=99, split="test", categories=(all_quantities,)))
        assert update_p_values(monitor) == 2
        assert _rows(monitor, "SELECT bin_id, predicted, expected FROM current_comparisons ORDER BY 1") == [
            ("a", 2, 4), ("b", 2, 3)
        ]  # fmt: skip
        assert _rows(monitor, "SELECT count(*) FROM audits") == [(2,)]
        assert decide(monitor, 1, VarianceDecision.REJECTED, "Eve", "it is in the next bin").state == "rejected"
        add_audit(monitor, "binwatch", "a", 5, "Ben")
        assert store.add_expectations([replace(_expected("a", 3), modified_at=LATER - timedelta(hours=1))]) == 1
        assert _rows(monitor, "SELECT id, state FROM variances ORDER BY 1") == [(1, "rejected"), (2, "superseded")]
        # The bin no longer has an expected quantity, so its row is deleted.
        without_quantity = replace(
            _expected("a", 0), quantity=None, reason=MetadataReason.NO_QUANTITY, etag="gone", modified_at=LATER
        )
        assert Store(monitor).add_expectations([without_quantity]) == 1
        assert _rows(monitor, "SELECT bin_id FROM current_comparisons") == [("b",)]


def test_monitor_can_read_and_write_while_serving(database: Database) -> None:
    with database.engine("binwatch_worker") as worker:
        Store(worker).add_counts([_count("a")])
    records = Records(database.url("binwatch_monitor"))
    records.check()
    assert records.read(read_totals) is not None
    assert records.read(partial(read_slices, slicing=Slicing(re.compile("(x)")))) == []
    records.close()
    writable = WritableRecords(database.url("binwatch_monitor"))
    audit = writable.write(lambda engine: add_audit(engine, "binwatch", "a", 2, "Ada"))
    assert (audit.predicted, audit.is_new) == (2, True)
    assert writable.write(draw).bin_id == "a"
    writable.write(lambda engine: add_audit(engine, "binwatch", "a", 2, "Ben", blind=True))
    assert writable.write(lambda engine: next_bin_to_audit(engine, "Cleo", 1.0)).bin_id == "a"
    for quantity in (2, 3):
        assert (
            writable.write(lambda engine, answer=quantity: add_known_answers(engine, "binwatch", {"a": answer}, "x"))
            == 1
        )


FORBIDDEN = {
    "binwatch_worker": [
        *(f"DELETE FROM {name}" for name in LEDGERS), *(f"TRUNCATE {name}" for name in TABLES),
        "INSERT INTO audits (bucket, bin_id, quantity, audited_at) VALUES ('b', 'a', 1, now())",
        "UPDATE audits SET quantity = 0", "UPDATE variance_trail SET quantity = 0",
        "UPDATE alembic_version SET version_num = ''",
    ],
    "binwatch_monitor": [
        *(f"DELETE FROM {name}" for name in TABLES if name not in ("current_comparisons", "drift_batches")),
        *(f"TRUNCATE {name}" for name in TABLES),
        *(f"UPDATE {name} SET {column} = NULL" for name, column in
          (("counts", "predicted"), ("comparisons", "outcome"), ("audits", "quantity"),
           ("models", "calibration"), ("variance_trail", "person"), ("variances", "expected"),
           ("photo_totals", "photos"), ("photo_hours", "photos"), ("trials", "begun"))),
        "INSERT INTO models (model_version, first_at) VALUES ('x', now())",
        "UPDATE alembic_version SET version_num = ''",
    ],
}  # fmt: skip
SCHEMA_CHANGES = (
    "CREATE TABLE own (id int)",
    "DROP TABLE counts",
    "ALTER TABLE counts ADD x int",
    "CREATE ROLE other",
)


@pytest.mark.parametrize("role", FORBIDDEN)
def test_forbidden_statements(role: str, database: Database) -> None:
    with database.engine(role) as engine:
        for statement in (*FORBIDDEN[role], *SCHEMA_CHANGES):
            with (
                pytest.raises(ProgrammingError, match=r"permission denied|must be owner"),
                engine.begin() as connection,
            ):
                connection.execute(text(statement))


def test_privileges_on_table_added_by_migration(database: Database) -> None:
    with database.engine(OWNER) as owner, owner.begin() as connection:
        connection.execute(text("CREATE TABLE added (id int)"))
    database.make_roles()
    with database.engine("binwatch_worker") as worker, worker.begin() as connection:
        connection.execute(text("INSERT INTO added VALUES (1)"))
    with database.engine("binwatch_monitor") as monitor:
        assert _rows(monitor, "SELECT id FROM added") == [(1,)]
        with pytest.raises(ProgrammingError, match="permission denied"), monitor.begin() as connection:
            connection.execute(text("INSERT INTO added VALUES (2)"))


def test_last_password_applies(database: Database) -> None:
    query = "SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'binwatch!_%' ESCAPE '!' ORDER BY rolname"
    with database.engine(OWNER) as owner:
        before = _rows(owner, query)
        database.make_roles(MONITOR_PASSWORD="another")
        (monitor, _) = _rows(owner, query)
    assert monitor not in before


def test_roles_keep_passwords_if_none_are_given(database: Database) -> None:
    query = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'binwatch!_%' ESCAPE '!' ORDER BY rolname"
    with database.engine(OWNER) as owner:
        before = _rows(owner, query)
        result = database.make_roles(WORKER_PASSWORD=None, MONITOR_PASSWORD=None)
        assert _rows(owner, query) == before
        assert [line.partition(":")[0] for line in result.stderr.splitlines() if "PASSWORD" in line] == [
            "WORKER_PASSWORD is not set", "MONITOR_PASSWORD is not set"
        ]  # fmt: skip
        assert r"(psql: \password binwatch_worker)" in result.stderr
        with owner.begin() as connection:
            connection.execute(text("ALTER ROLE binwatch_worker PASSWORD NULL"))
        database.make_roles(WORKER_PASSWORD=None)
        assert _rows(owner, query)[1] == ("binwatch_worker", None)
    with database.engine("binwatch_worker") as worker:  # the test server requires no password
        assert Store(worker).add_counts([_count("a")]) == 1


def test_missing_privilege_is_explained(database: Database) -> None:
    with database.engine(OWNER) as owner, owner.begin() as connection:
        connection.execute(text("REVOKE INSERT ON counts FROM binwatch_worker"))
    with database.engine("binwatch_worker") as worker:
        with pytest.raises(ProgrammingError, match="permission denied for table counts") as raised:
            Store(worker).check()
        explanation = explain(raised.value, worker)
        assert explanation.startswith(
            "the role 'binwatch_worker' lacks permission to INSERT: permission denied for table counts;"
        )
        database.make_roles()
        Store(worker).check()
