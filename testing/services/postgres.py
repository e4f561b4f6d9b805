"""A real PostgreSQL from Debian's package, started for the test session and removed at its end."""

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
from testing.waiting import wait_until_ready

START_TIMEOUT_S = 60
TEMPLATE = "migrated"
# Data need not survive the session, so fsync is off. A crash of the server process still loses no commit.
OPTIONS = ("fsync=off", "full_page_writes=off", "listen_addresses=", "shared_buffers=32MB")


def require_service(name: str, install_hint: str) -> None:
    """Skip the test because a service is not installed; in CI, fail instead."""
    message = f"{name} is not installed; {install_hint}"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(message)
    pytest.skip(message)


class Postgres:
    """A server that can be stopped and started. It listens only on a Unix socket in its folder, not on TCP."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.folder = folder
        self._programs = programs
        # PostgreSQL refuses to run as root, and no server may outlive a test run that was killed.
        self._prefix = unprivileged_prefix(folder)
        self._server: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Create the data folder."""
        create = [self._programs / "initdb", "-D", self.folder / "data", "-U", "binwatch", "-A", "trust", "-E", "UTF8"]
        if self._run([*map(str, create), "--locale=C", "--no-sync"]).wait() != 0:
            raise RuntimeError((self.folder / "log").read_text())

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        settings = [part for option in OPTIONS for part in ("-c", option)]
        serve = [self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder]
        self._server = self._run([*map(str, serve), *settings])
        log = (self.folder / "log").read_text
        wait_until_ready(self._server, lambda: self.execute("SELECT 1"), OperationalError, log, START_TIMEOUT_S)

    def stop(self, stop_signal: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT aborts open transactions and shuts down cleanly, SIGQUIT is like a crash."""
        if self._server is None:
            return
        self._server.send_signal(stop_signal)
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None

    def pause(self) -> None:
        """Let new connections hang until `resume`. Existing connections are still served."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Accept new connections again."""
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen([*self._prefix, *command], env=environment, cwd=self.folder, stdout=log, stderr=log)

    def url(self, database: str) -> str:
        return f"postgresql://binwatch@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        """Run a statement outside of any transaction, which CREATE DATABASE requires."""
        url = self.url("postgres").replace("postgresql:", "postgresql+psycopg:", 1)
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server with an empty, migrated template database, which `postgres_url` copies."""
    with running_postgres() as server:
        yield server


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL server with an empty, migrated template database within the context."""
    programs = _programs()
    if programs is None:
        require_service("PostgreSQL", "on Debian: apt-get install postgresql")
        return
    # Not pytest's tmp_path: a socket's path may have at most 107 bytes, and the server's user needs access.
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
    """URL of a new database without tables, for one test."""
    yield from _database(postgres, "template1")


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """URL of a new, migrated and empty database, for one test."""
    yield from _database(postgres, TEMPLATE)


@pytest.fixture(scope="session")
def _shared_url(postgres: Postgres) -> Iterator[str]:
    """A database shared by the tests of a session: truncating it is faster than creating another."""
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
    """Folder of initdb and postgres. Debian has one folder for each version, outside of PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    initdb = shutil.which("initdb")
    folders += [Path(initdb).resolve().parent] if initdb else []
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def unprivileged_prefix(folder: Path) -> list[str]:
    """Command prefix that runs a program as a user other than root, and ends it with this process.

    If this process runs as root, that user becomes the owner of `folder`.
    """
    dies_with_parent = ["setpriv", "--pdeathsig=INT"] if shutil.which("setpriv") else []
    if os.geteuid() != 0:
        return dies_with_parent
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    if not dies_with_parent:
        return ["runuser", "-u", user.pw_name, "--"]
    return [*dies_with_parent, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
