"""Reading the records: a transaction on a fresh connection each time, and an answer within a deadline."""

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
"""Largest row id of a database. A larger one would be a database error instead of a row that does not exist."""
DEADLINE_S = 6.0
"""Longest that a read may take. Below the 10 s after which Prometheus gives up on a scrape."""
CONNECT_TIMEOUT_S = 3
STATEMENT_TIMEOUT_S = 4
READERS = 8
"""Reads at a time. A database that hangs holds this many threads of the monitor and no more."""
PROBES = 2
"""More reads at a time, for /healthz and /metrics alone: these must not queue behind the pages of people."""
AGAIN_S = 0.2
"""How long a read waits for a free reader during an outage. With a longer wait, a scrape would queue behind all pages
that people reload."""

READING = TransactionMode(read_only=True, statement_timeout_s=STATEMENT_TIMEOUT_S)
WRITING = TransactionMode(statement_timeout_s=STATEMENT_TIMEOUT_S)


class RecordsDown(OutageError):
    """The records cannot be read now. Worth trying again."""


class Records:
    """The records, read-only. Safe to share between threads; recovers by itself once the database is back."""

    def __init__(self, database_url: str) -> None:
        self._engine = _connect(database_url, READING)
        if self._engine.dialect.name == "sqlite" and self._engine.url.database in (None, "", ":memory:"):
            raise SettingsError("BINWATCH_DATABASE_URL is SQLite in memory, where no worker can write; name a file")
        self._readers = ThreadPoolExecutor(READERS + PROBES, thread_name_prefix="records")
        self._free = BoundedSemaphore(READERS)
        self._free_for_probes = BoundedSemaphore(PROBES)
        self._up = True

    def check(self) -> None:
        """Raise BinwatchError unless the database can be reached and has this release's schema."""
        self._within_deadline(lambda: check_schema(self._engine), self._free)
        self._engine.dispose()

    def read(self, query: Callable[[Connection], T], *, probe: bool = False) -> T:
        """What `query` returns, run in a transaction of its own. Raises RecordsDown, at the latest after DEADLINE_S.

        A `probe` has readers of its own.
        """

        def run() -> T:
            with self._engine.connect() as connection:
                connection.detach()  # a pooled connection outlives its database: a moved file, a failed-over server
                return query(connection)

        try:
            answer = self._within_deadline(run, self._free_for_probes if probe else self._free)
        except RecordsDown as error:
            self._note(error)
            raise
        self._note(None)
        return answer

    def close(self) -> None:
        """Release threads and connections, without waiting for a read that hangs."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    def _within_deadline(self, work: Callable[[], T], free: BoundedSemaphore) -> T:
        begun = time.monotonic()
        if not free.acquire(timeout=DEADLINE_S if self._up else AGAIN_S):
            raise self._down("earlier reads wait for an answer; check the database")
        future = self._readers.submit(_freeing, free, work)
        try:
            return future.result(max(begun + DEADLINE_S - time.monotonic(), 0))
        except TimeoutError as error:
            raise self._down(f"no answer within {DEADLINE_S:g} s; {advice('database_url')}") from error
        except SQLAlchemyError as error:
            raise self._down(explain(error, self._engine)) from error

    def _down(self, why: str) -> RecordsDown:
        url = self._engine.url.render_as_string(hide_password=True)
        return RecordsDown(f"the records at {url} cannot be read: {why}")

    def _note(self, error: RecordsDown | None) -> None:
        """Log when the records go and when they come back, not at every scrape in between."""
        was_up, self._up = self._up, error is None
        if error and was_up:
            logger.error("%s", error)
        elif not error and not was_up:
            logger.info("the records can be read again")


def _freeing(free: BoundedSemaphore, work: Callable[[], T]) -> T:
    try:
        return work()
    finally:
        free.release()


class WritableRecords:
    """The records for what people enter while the monitor serves. Connects on each write."""

    def __init__(self, database_url: str) -> None:
        self._engine = _connect(database_url, WRITING)

    def write(self, change: Callable[[Engine], T]) -> T:
        """What `change` returns. Waits as briefly for its database as reads do. Raises RecordsDown, which is logged."""
        try:
            return change(self._engine)
        except SQLAlchemyError as error:
            raise self._down(error) from error
        finally:
            # No connection is kept: asking an old one whether its database still answers has no time limit.
            self._engine.dispose()

    def _down(self, error: SQLAlchemyError) -> RecordsDown:
        url = self._engine.url.render_as_string(hide_password=True)
        found = RecordsDown(f"the records at {url} cannot be written: {explain(error, self._engine)}")
        logger.error("%s", found)
        return found


@contextmanager
def writable(settings: Settings) -> Iterator[Engine]:
    """The records for a command that writes, with this release's schema. Raises BinwatchError, RecordsDown."""
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
    """Open the file only if it exists: SQLite would make an empty one."""
    if not options.get("uri"):
        if not Path(arguments[0]).exists():
            raise sqlite3.OperationalError(
                "unable to open database file (it does not exist; python -m worker migrate creates it)"
            )
        options["uri"] = True
        arguments[0] = f"file:{quote(str(arguments[0]))}?mode=rw"


def _open_postgres(_: Dialect, __: ConnectionPoolEntry, ___: list[Any], options: dict[str, Any]) -> None:
    options.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    # A server that vanished without a word (a pulled cable) sends no reset; the kernel would wait 15 minutes.
    options.setdefault("tcp_user_timeout", STATEMENT_TIMEOUT_S * 1000)
