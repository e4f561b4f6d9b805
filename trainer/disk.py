"""Atomic file writes, folder locks, and checks of free disk space before long work."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from binwatch.safe_csv import SafeCsvWriter
from trainer.errors import ConfigError, DiskError

LOCK_FILE = "lock"
"""Name of the lock file of a folder in which only one process may work at a time."""


def make_folder(folder: Path) -> None:
    """Create a folder and its parents unless they exist. Raises DiskError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error


@contextmanager
def exclusive_lock(folder: Path, message: str) -> Iterator[None]:
    """Create `folder` and lock it during the context. Raises ConfigError with `message` if it is already locked."""
    make_folder(folder)
    with (folder / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{folder}: {message}") from error
        yield


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file completely or not at all, even on a power failure. Raises DiskError, for example on a full disk."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            flush_to_disk(file)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        hint = "; make room" if error.errno == errno.ENOSPC else ""
        raise DiskError(f"{path}: cannot be written ({error.strerror}){hint}") from error


def write_json(path: Path, content: object) -> None:
    """Write a JSON file atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file atomically."""
    file = io.StringIO(newline="")
    SafeCsvWriter(file, "\n").writerows(rows)
    write_atomically(path, file.getvalue().encode())


def write_png(path: Path, figure: Any) -> None:
    """Write a Matplotlib figure atomically, at its own resolution."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    write_atomically(path, file.getvalue())


def flush_to_disk(file: IO[bytes]) -> None:
    """Flush a file's content to the disk. A file that is renamed before this may be empty after a power failure."""
    file.flush()
    os.fsync(file.fileno())


def check_free_space(folder: Path, need: float, what: str, advice: str) -> None:
    """Raise DiskError if fewer than `need` bytes are free on the disk of `folder`, which must exist.

    The message says that `what` needs this space, and gives `advice`.
    """
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DiskError(f"{folder}: {what} need about {format_bytes(need)} and {format_bytes(free)} are free; {advice}")


def format_bytes(n_bytes: float) -> str:
    """Format a number of bytes for messages, for example 1.5 GB."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"
