"""What tells a file that has no ETag from another one at its place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path


def file_etag(size: int, modified: datetime) -> str:
    """In place of an ETag; `size` is in bytes."""
    return f"{int(modified.timestamp()):x}-{size:x}"


def file_version(path: Path) -> tuple[str, datetime]:
    """The same of a file on a disk, and when it was last changed, in whole seconds as S3 has it. Raises OSError."""
    stat = path.stat()
    modified = datetime.fromtimestamp(stat.st_mtime, UTC).replace(microsecond=0)
    return file_etag(stat.st_size, modified), modified
