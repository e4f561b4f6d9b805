"""Files and folders that are whole or not there, and room for them, asked for before long work."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import IO

from trainer.errors import DiskError


def make_folder(folder: Path) -> None:
    """Make a folder that need not be new. Raises DiskError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there, even if the power fails. Raises DiskError, on a full disk say."""
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


def sync(file: IO[bytes]) -> None:
    """Wait until what was written is on the disk: a file that gets its name before may be empty after a power cut."""
    file.flush()
    os.fsync(file.fileno())


def check_room(folder: Path, need: float, what: str, advice: str) -> None:
    """Raises DiskError if fewer than `need` bytes are free where `folder`, which is there, lies."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DiskError(f"{folder}: {what} need about {amount(need)} and {amount(free)} are free; {advice}")


def amount(size: float) -> str:
    """Bytes in words."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
