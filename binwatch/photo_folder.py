"""Reads photos from a folder instead of a bucket. Keys are paths below the folder, as `binwatch check` records them."""

from __future__ import annotations

from pathlib import Path

from binwatch.file_versions import file_version
from binwatch.keys import has_dot_segments
from binwatch.objects import FetchedObject, ObjectRefused


class PhotoFolder:
    """Reads photos as binwatch.objects.Objects does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, bucket: str, key: str, *, max_bytes: int, version_id: str | None = None) -> FetchedObject:
        """Read the current file. `bucket` and `version_id` are ignored. Raises ObjectRefused."""
        if has_dot_segments(key) or key.startswith("/"):
            raise ObjectRefused("missing", f"{key!r} is not a file in {self._folder}")
        path = self._folder / key
        try:
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
            etag, modified = file_version(path)
        except PermissionError as error:
            raise ObjectRefused("forbidden", f"{path} may not be read ({error.strerror})") from error
        except (OSError, ValueError) as error:
            raise ObjectRefused("missing", f"{path} cannot be read ({error}); see BINWATCH_PHOTO_DIR") from error
        if len(data) > max_bytes:
            raise ObjectRefused("too_large", f"{path} has over {max_bytes:,} bytes, the limit", etag, modified)
        return FetchedObject(data, etag, None, modified)
