"""Versions of files that have no ETag, from their size and modification time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path


def file_etag(size: int, modified: datetime) -> str:
    """Return a substitute for an ETag; `size` is in bytes."""
    return f"{int(modified.timestamp()):x}-{size:x}"


def file_version(path: Path) -> tuple[str, datetime]:
    """Return the `file_etag` of a local file and its modification time in whole seconds, as in S3. Raises OSError."""
    stat = path.stat()
    modified = datetime.fromtimestamp(stat.st_mtime, UTC).replace(microsecond=0)
    return file_etag(stat.st_size, modified), modified
