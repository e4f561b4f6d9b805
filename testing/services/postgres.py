"""A real PostgreSQL, started from Debian's package for this test session and gone with it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.tables import Base
from testing.waiting import wait_until_it_answers

START_S = 60
TEMPLATE = "migrated"
# Nothing here outlives the session, so nothing needs to reach the disk; but a crash of the server must lose no commit.
OPTIONS = ("fsync=off", "full_page_writes=off", "listen_addresses=", "shared_buffers=32MB")


def require_service(name: str, how: str) -> None:
    """Skip the test on a laptop that lacks a service, fail where it must be there."""
    message = f"{name} is not installed; {how}"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(message)
    pytest.skip(message)


class Postgres:
    """A server that can be stopped and started. It only listens on a socket in its folder: no port to collide on."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.folder = folder
        self._programs = programs
        # PostgreSQL refuses to run as root; and no server may outlive a test run that was killed.
        self._prefix = as_user(folder)
        self._server: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Make the data folder, which has no databases of ours yet."""
        create = [self._programs / "initdb", "-D", self.folder / "data", "-U", "binwatch", "-A", "trust", "-E", "UTF8"]
        if self._run([*map(str, create), "--locale=C", "--no-sync"]).wait() != 0:
            raise RuntimeError((self.folder / "log").read_text())

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = [part for option in OPTIONS for part in ("-c", option)]
        serve = [self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder]
        self._server = self._run([*map(str, serve), *settings])
        log = (self.folder / "log").read_text
        wait_until_it_answers(self._server, lambda: self.execute("SELECT 1"), OperationalError, log, START_S)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: INT breaks off what is open in good order, QUIT as a crash does."""
        if self._server is None:
            return
        self._server.send_signal(how)
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None

    def pause(self) -> None:
        """Let new connections hang until `go_on`. Existing connections are still served."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again."""
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen([*self._prefix, *command], env=environment, cwd=self.folder, stdout=log, stderr=log)

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
    with running_postgres() as server:
        yield server


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server with an empty, migrated database, until the block ends."""
    programs = _programs()
    if programs is None:
        require_service("PostgreSQL", "on Debian: apt-get install postgresql")
        return
    # Not pytest's tmp_path: a socket's path has at most 107 bytes, and the server's user must get there.
    folder = Path(tempfile.mkdtemp(prefix="binwatch-pg-"))
    server = Postgres(programs, folder)
    try:
        server.create()
        server.start()
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        engine = connect(server.url(TEMPLATE))
        migrate(engine)
        engine.dispose()
        yield server
    finally:
        server.stop()
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


def as_user(folder: Path) -> list[str]:
    """Words that start a program as a user other than root, to end with this process."""
    dies_with_us = ["setpriv", "--pdeathsig=INT"] if shutil.which("setpriv") else []
    if os.geteuid() != 0:
        return dies_with_us
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    if not dies_with_us:
        return ["runuser", "-u", user.pw_name, "--"]
    return [*dies_with_us, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
