"""Photos by key, from a folder or a tar."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePath, PurePosixPath
from typing import Protocol, TypeVar

from binwatch.keys import PHOTO_SUFFIXES, PHOTO_SUFFIXES_TEXT, normalise_bin_id
from trainer.errors import DataError

PREPARED_FILE = "prepared.json"
"""File that `prepare` writes beside the photos: their size and JPEG quality."""

Location = TypeVar("Location")


class PhotoSource(Protocol):
    """Encoded photos by key. Threads may call `read` at the same time."""

    def sizes(self) -> dict[str, int]:
        """Return key → size of the file in bytes."""

    def names(self) -> dict[str, PurePath]:
        """Return key → path of the file below the source."""

    def read(self, key: str) -> bytes:
        """Return the content of the photo's file, not decoded."""


class FolderSource:
    """Photos below a folder. The key of a photo is its file name without the suffix."""

    def __init__(self, folder: Path) -> None:
        files = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
        self._files = _index_by_key(folder, ((normalise_bin_id(path.stem), path, path) for path in files))
        self._folder = folder

    def sizes(self) -> dict[str, int]:
        return {key: path.stat().st_size for key, path in self._files.items()}

    def names(self) -> dict[str, PurePath]:
        return {key: path.relative_to(self._folder) for key, path in self._files.items()}

    def read(self, key: str) -> bytes:
        return self._files[key].read_bytes()


class TarSource:
    """Photos in an uncompressed tar, whose members are located once and then read by their offsets."""

    def __init__(self, file: Path) -> None:
        try:
            with tarfile.open(file, mode="r:") as tar:
                members = [member for member in tar if member.isfile()]
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{file}: is not an uncompressed tar ({error}); unpack it and give the folder") from error
        names = ((PurePosixPath(member.name), member) for member in members)
        photos = (
            (normalise_bin_id(name.stem), name, member)
            for name, member in names
            if name.suffix.lower() in PHOTO_SUFFIXES
        )
        self._members = _index_by_key(file, photos)
        self._file = file

    def sizes(self) -> dict[str, int]:
        return {key: member.size for key, member in self._members.items()}

    def names(self) -> dict[str, PurePath]:
        return {key: PurePosixPath(member.name) for key, member in self._members.items()}

    def read(self, key: str) -> bytes:
        member = self._members[key]
        with self._file.open("rb") as file:  # opened for each photo, so that threads do not share a position
            file.seek(member.offset_data)
            return file.read(member.size)


def _index_by_key(path: Path, files: Iterable[tuple[str, PurePath, Location]]) -> dict[str, Location]:
    """Return key → location, from (key, name, location) of files. Raises DataError if two files have the same key."""
    names: dict[str, PurePath] = {}
    locations: dict[str, Location] = {}
    for key, name, location in files:
        if key in names:
            raise DataError(f"{path}: {names[key]} and {name} are both photo {key}; keep one of them, or rename it")
        names[key], locations[key] = name, location
    return locations


def prepared_jpeg_quality(folder: Path, size: int) -> int | None:
    """Return the data.jpeg_quality that the photos of `prepare` in `folder` need, for a network with inputs of `size`.

    Photos keep the artefacts of their JPEG compression unless they are resized again. Returns None if `prepare` did not
    write the folder.
    """
    file = folder / PREPARED_FILE
    if not file.is_file():
        return None
    prepared = json.loads(file.read_text(encoding="utf-8"))
    return int(prepared["jpeg_quality"]) if prepared["size"] == size else 0


def check_exists(path: Path) -> None:
    """Raise DataError if `path` does not exist, without reading it."""
    if not path.exists():
        raise DataError(f"{path}: no such folder or tar of photos")


def open_source(path: Path) -> PhotoSource:
    """Open the photos at `path`, a folder or a tar. Raises DataError if there are none."""
    check_exists(path)
    source: PhotoSource = FolderSource(path) if path.is_dir() else TarSource(path)
    if not source.sizes():
        raise DataError(f"{path}: holds no photos ({PHOTO_SUFFIXES_TEXT})")
    return source
