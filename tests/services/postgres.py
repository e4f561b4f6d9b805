"""A real PostgreSQL, started from Debian's package for this test session and gone with it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.tables import Base

START_S = 60
TEMPLATE = "migrated"
# Nothing here outlives the session, so nothing needs to reach the disk.
OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "shared_buffers=32MB")


def require_service(name: str, how: str) -> None:
    """Skip the test on a laptop that lacks a service, fail where it must be there."""
    message = f"{name} is not installed; {how}"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(message)
    pytest.skip(message)


@dataclass(frozen=True)
class Postgres:
    """A running server that only listens on a socket in its own folder: no port to collide on."""

    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql://binwatch@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        """Run one statement outside of any transaction, as CREATE DATABASE needs it."""
        url = self.url("postgres").replace("postgresql:", "postgresql+psycopg:", 1)
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server with an empty, migrated database to copy (`postgres_url` does)."""
    programs = _programs()
    if programs is None:
        require_service("PostgreSQL", "on Debian: apt-get install postgresql")
        return
    # Not pytest's tmp_path: a socket's path has at most 107 bytes, and the server's user must get there.
    folder = Path(tempfile.mkdtemp(prefix="binwatch-pg-"))
    try:
        with (folder / "log").open("wb") as log:
            server = _start(programs, folder, log)
            try:
                yield _with_template(Postgres(folder), server)
            finally:
                _stop(server)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_empty_url(postgres: Postgres) -> Iterator[str]:
    """URL of a database of this test's own, without any table."""
    yield from _database(postgres, "template1")


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """URL of migrated, empty records of this test's own."""
    yield from _database(postgres, TEMPLATE)


@pytest.fixture(scope="session")
def _shared_url(postgres: Postgres) -> Iterator[str]:
    """One database for the tests that take turns: emptying it is quicker than making another."""
    yield from _database(postgres, TEMPLATE)


@pytest.fixture
def postgres_records(_shared_url: str) -> Iterator[Engine]:
    """Empty records on PostgreSQL."""
    engine = connect(_shared_url)
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))  # a test may have left a transaction open
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def records_engine(request: pytest.FixtureRequest) -> Engine:
    """Empty records, on each database that Binwatch supports."""
    name = "sqlite_records" if request.param == "sqlite" else "postgres_records"
    engine: Engine = request.getfixturevalue(name)
    return engine


def _database(postgres: Postgres, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield postgres.url(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _programs() -> Path | None:
    """Folder of initdb and postgres; Debian keeps them out of PATH, one folder per version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = shutil.which("initdb")
    folders += [Path(found).resolve().parent] if found else []
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def _as_user(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root; and no server may outlive a test run that was killed."""
    dies_with_us = ["setpriv", "--pdeathsig=INT"] if shutil.which("setpriv") else []
    if os.geteuid() != 0:
        return dies_with_us
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    if not dies_with_us:
        return ["runuser", "-u", user.pw_name, "--"]
    return [*dies_with_us, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _start(programs: Path, folder: Path, log: object) -> subprocess.Popen[bytes]:
    prefix, data = _as_user(folder), folder / "data"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    create = [programs / "initdb", "-D", data, "-U", "binwatch", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run([*prefix, *map(str, create)], check=True, env=environment, cwd=folder, stdout=log, stderr=log)
    settings = [part for option in OPTIONS for part in ("-c", option)]
    serve = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), *settings]
    return subprocess.Popen([*prefix, *serve], env=environment, cwd=folder, stdout=log, stderr=log)


def _with_template(postgres: Postgres, server: subprocess.Popen[bytes]) -> Postgres:
    deadline = time.monotonic() + START_S
    while True:
        try:
            postgres.execute(f"CREATE DATABASE {TEMPLATE}")
            break
        except OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((postgres.folder / "log").read_text()) from None
            time.sleep(0.05)  # between two looks at the condition
    engine = connect(postgres.url(TEMPLATE))
    migrate(engine)
    engine.dispose()
    return postgres


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGINT)  # a fast shutdown: open connections are closed
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
