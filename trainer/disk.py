"""Files that are written completely or not at all, locks of folders, and the free space, checked before long work."""

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

LOCK = "lock"
"""File in a folder in which one process works at a time."""


def make_folder(folder: Path) -> None:
    """Make a folder unless it exists. Raises DiskError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error


@contextmanager
def sole_process(folder: Path, message: str) -> Iterator[None]:
    """Make `folder` and lock it while the context lasts. Raises ConfigError with `message` if it is locked already."""
    make_folder(folder)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{folder}: {message}") from error
        yield


def write_whole(path: Path, data: bytes) -> None:
    """Write a file completely or not at all, even if the power fails. Raises DiskError, for example on a full disk."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            sync(file)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        hint = "; make room" if error.errno == errno.ENOSPC else ""
        raise DiskError(f"{path}: cannot be written ({error.strerror}){hint}") from error


def write_json(path: Path, content: object) -> None:
    """Write JSON with `write_whole`."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV with `write_whole`."""
    file = io.StringIO(newline="")
    SafeCsvWriter(file, "\n").writerows(rows)
    write_whole(path, file.getvalue().encode())


def write_png(path: Path, figure: Any) -> None:
    """Write a figure of Matplotlib with `write_whole`, at the figure's own resolution."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    write_whole(path, file.getvalue())


def sync(file: IO[bytes]) -> None:
    """Wait until a file's content is on the disk: a file that is renamed before may be empty after a power cut."""
    file.flush()
    os.fsync(file.fileno())


def check_room(folder: Path, need: float, what: str, advice: str) -> None:
    """Raises DiskError if fewer than `need` bytes are free on the disk of `folder`, which must exist."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DiskError(f"{folder}: {what} need about {amount(need)} and {amount(free)} are free; {advice}")


def amount(size: float) -> str:
    """A number of bytes, for messages."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
