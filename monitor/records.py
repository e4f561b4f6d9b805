"""Access to the records. Each read is a transaction on a new connection, and ends within a deadline."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from binwatch.errors import OutageError, SettingsError
from binwatch.records.engine import connect
from binwatch.records.postgres import TransactionMode
from binwatch.records.problems import explain
from binwatch.records.schema import check_schema
from binwatch.settings import Settings, advice

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ID = 2**63 - 1
"""Maximum row id. Querying a larger one is a database error instead of an empty result."""
DEADLINE_S = 6.0
"""Maximum duration of a read. It is below the 10 s after which Prometheus gives up on a scrape."""
CONNECT_TIMEOUT_S = 3
STATEMENT_TIMEOUT_S = 4
MAX_READERS = 8
"""Maximum number of concurrent reads. A database that hangs blocks this many threads of the monitor and no more."""
MAX_PROBES = 2
"""Maximum number of additional reads for /healthz and /metrics, which must not queue behind pages."""
OUTAGE_WAIT_S = 0.2
"""How long a read waits for a free reader during an outage. With a longer wait, a scrape would queue behind all pages
that people reload."""

READING = TransactionMode(read_only=True, statement_timeout_s=STATEMENT_TIMEOUT_S)
WRITING = TransactionMode(statement_timeout_s=STATEMENT_TIMEOUT_S)


class RecordsDown(OutageError):
    """The records cannot be read or written at the moment."""


class Records:
    """The records, read-only. Safe to share between threads. Recovers as soon as the database does."""

    def __init__(self, database_url: str) -> None:
        self._engine = _connect(database_url, READING)
        if self._engine.dialect.name == "sqlite" and self._engine.url.database in (None, "", ":memory:"):
            raise SettingsError("BINWATCH_DATABASE_URL is SQLite in memory, where no worker can write; name a file")
        self._readers = ThreadPoolExecutor(MAX_READERS + MAX_PROBES, thread_name_prefix="records")
        self._free_readers = BoundedSemaphore(MAX_READERS)
        self._free_probes = BoundedSemaphore(MAX_PROBES)
        self._is_up = True

    def check(self) -> None:
        """Raise BinwatchError unless the database can be reached and has this release's schema."""
        self._within_deadline(lambda: check_schema(self._engine), self._free_readers)
        self._engine.dispose()

    def read(self, query: Callable[[Connection], T], *, probe: bool = False) -> T:
        """Run `query` in a transaction and return its result. Raises RecordsDown, at the latest after DEADLINE_S.

        A `probe` does not queue behind the reads of pages.
        """

        def run() -> T:
            with self._engine.connect() as connection:
                connection.detach()  # a pooled connection may outlive its database: a moved file, a failed-over server
                return query(connection)

        try:
            result = self._within_deadline(run, self._free_probes if probe else self._free_readers)
        except RecordsDown as error:
            self._log_change(error)
            raise
        self._log_change(None)
        return result

    def close(self) -> None:
        """Release threads and connections, without waiting for reads that hang."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    def _within_deadline(self, work: Callable[[], T], free_readers: BoundedSemaphore) -> T:
        started = time.monotonic()
        if not free_readers.acquire(timeout=DEADLINE_S if self._is_up else OUTAGE_WAIT_S):
            raise self._down("earlier reads are still waiting for an answer; check the database")

        def run() -> T:
            try:
                return work()
            finally:
                free_readers.release()

        future = self._readers.submit(run)
        try:
            return future.result(max(started + DEADLINE_S - time.monotonic(), 0))
        except TimeoutError as error:
            raise self._down(f"no answer within {DEADLINE_S:g} s; {advice('database_url')}") from error
        except SQLAlchemyError as error:
            raise self._down(explain(error, self._engine)) from error

    def _down(self, reason: str) -> RecordsDown:
        url = self._engine.url.render_as_string(hide_password=True)
        return RecordsDown(f"the records at {url} cannot be read: {reason}")

    def _log_change(self, error: RecordsDown | None) -> None:
        """Log the start and the end of an outage, and nothing in between."""
        was_up, self._is_up = self._is_up, error is None
        if error and was_up:
            logger.error("%s", error)
        elif not error and not was_up:
            logger.info("the records can be read again")


class WritableRecords:
    """The records, for writes of a running monitor. Connects on each write."""

    def __init__(self, database_url: str) -> None:
        self._engine = _connect(database_url, WRITING)

    def write(self, change: Callable[[Engine], T]) -> T:
        """Run `change` and return its result. Timeouts, but no deadline, as for reads. Logs and raises RecordsDown."""
        try:
            return change(self._engine)
        except SQLAlchemyError as error:
            raise self._down(error) from error
        finally:
            # No connection is kept: checking whether an old one still works has no time limit.
            self._engine.dispose()

    def _down(self, error: SQLAlchemyError) -> RecordsDown:
        url = self._engine.url.render_as_string(hide_password=True)
        down = RecordsDown(f"the records at {url} cannot be written: {explain(error, self._engine)}")
        logger.error("%s", down)
        return down


@contextmanager
def writable(settings: Settings) -> Iterator[Engine]:
    """Open the records for a command that writes, and check their schema. Raises BinwatchError, RecordsDown."""
    engine = connect(settings.database_url.get_secret_value())
    if engine.dialect.name == "sqlite":
        event.listen(engine, "do_connect", _open_sqlite)
    try:
        check_schema(engine)
        yield engine
    except SQLAlchemyError as error:
        raise RecordsDown(f"the records cannot be written: {explain(error, engine)}") from error
    finally:
        engine.dispose()


def _connect(database_url: str, mode: TransactionMode) -> Engine:
    engine = connect(database_url, CONNECT_TIMEOUT_S, mode)
    event.listen(engine, "do_connect", _open_sqlite if engine.dialect.name == "sqlite" else _open_postgres)
    return engine


def _open_sqlite(_: Dialect, __: ConnectionPoolEntry, arguments: list[Any], options: dict[str, Any]) -> None:
    """Open the file only if it exists. SQLite would create an empty one."""
    if not options.get("uri"):
        if not Path(arguments[0]).exists():
            raise sqlite3.OperationalError(
                "unable to open database file (it does not exist; python -m worker migrate creates it)"
            )
        options["uri"] = True
        arguments[0] = f"file:{quote(str(arguments[0]))}?mode=rw"


def _open_postgres(_: Dialect, __: ConnectionPoolEntry, ___: list[Any], options: dict[str, Any]) -> None:
    options.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    # A server that disappears silently, such as after a pulled cable, sends no reset; the kernel would wait 15 minutes.
    options.setdefault("tcp_user_timeout", STATEMENT_TIMEOUT_S * 1000)
