"""The demo's working folder for records and logs, which is usually removed at the end."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from sqlalchemy import func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from binwatch.errors import BinwatchError
from binwatch.records.engine import connect, sqlite_url
from binwatch.records.tables import Audit


def database_of(folder: Path) -> Path:
    """Return the SQLite file with the records."""
    return folder / "records.db"


def database_url(folder: Path) -> str:
    """Return the SQLAlchemy URL of the records, for BINWATCH_DATABASE_URL."""
    return sqlite_url(database_of(folder))


@contextmanager
def working_folder(console: Console, keep: Path | None, bucket: str) -> Iterator[Path]:
    """Yield a folder for records and logs: `keep`, or a temporary one. `bucket` is that of the photos.

    The temporary folder is kept after an error. It is also kept after an interrupt if audits were entered, or if they
    could not be counted.
    """
    folder = _create_empty_folder(keep) if keep else Path(tempfile.mkdtemp(prefix="binwatch-demo-"))
    is_kept = keep is not None
    try:
        yield folder
    except (KeyboardInterrupt, SystemExit):
        if not is_kept:
            is_kept = True  # another Ctrl-C may interrupt the count of audits
            with suppress(SQLAlchemyError):
                is_kept = count_audits(folder) > 0
        raise
    except BaseException:
        is_kept = True
        raise
    finally:
        if is_kept:
            with suppress(OSError):  # the terminal may have been closed
                if database_of(folder).exists():
                    print_plain(console, status_advice(folder, bucket))
                print_plain(console, f"records and logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def print_plain(console: Console, *lines: str) -> None:
    """Print lines without markup and wrapping, so that they can be copied."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def status_advice(folder: Path, bucket: str) -> str:
    """Return a hint with the command that shows the records in a folder."""
    return f"To look at it in another terminal: {_monitor_command(folder, bucket, 'status')}"


def _monitor_command(folder: Path, bucket: str, command: str) -> str:
    """Return a command of the monitor that works in any terminal, independent of its environment variables."""
    records = f"BINWATCH_DATABASE_URL={shlex.quote(database_url(folder))} BINWATCH_BUCKET={shlex.quote(bucket)}"
    return f"{records} {shlex.quote(sys.executable)} -m monitor {command}"


def _create_empty_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):  # the records of an earlier demo would not match the new bucket
            raise BinwatchError(f"{folder}: is not empty; name another folder with --keep")
    except OSError as error:
        raise BinwatchError(f"{folder}: cannot be used ({error.strerror}); name another folder with --keep") from error
    return folder.resolve()


def count_audits(folder: Path) -> int:
    """Count the entered audits; 0 if there are no records yet."""
    with connect(database_url(folder)).connect() as connection:
        if not inspect(connection).has_table(Audit.__tablename__):
            return 0
        return connection.execute(select(func.count()).select_from(Audit)).scalar_one()


def export_advice(folder: Path, bucket: str) -> str:
    """Return a hint with the command that saves the audits in a folder."""
    return f"to save before, in another terminal: {_monitor_command(folder, bucket, 'audits export audits.csv')}"
