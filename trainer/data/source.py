"""Photos by key, from a folder or a tar."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePath, PurePosixPath
from typing import Protocol, TypeVar

from binwatch.keys import PHOTO_SUFFIXES, PHOTO_SUFFIXES_TEXT, normalize_bin_id
from trainer.errors import DataError

PREPARED = "prepared.json"
"""File beside the photos that `prepare` stored: their size and JPEG quality."""

Place = TypeVar("Place")


class PhotoSource(Protocol):
    """Bytes of photos by key. `read` may be called from many threads at once."""

    def sizes(self) -> dict[str, int]:
        """Key → size of the file in bytes."""

    def names(self) -> dict[str, PurePath]:
        """Key → the file's name, with its folders."""

    def read(self, key: str) -> bytes:
        """The photo's file, still encoded."""


class FolderSource:
    """Photos below a folder; the key is the file name without its suffix."""

    def __init__(self, folder: Path) -> None:
        files = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
        self._files = _by_key(folder, ((normalize_bin_id(path.stem), path, path) for path in files))
        self._folder = folder

    def sizes(self) -> dict[str, int]:
        return {key: path.stat().st_size for key, path in self._files.items()}

    def names(self) -> dict[str, PurePath]:
        return {key: path.relative_to(self._folder) for key, path in self._files.items()}

    def read(self, key: str) -> bytes:
        return self._files[key].read_bytes()


class TarSource:
    """Photos in an uncompressed tar. Its members are located once and then read by their offsets."""

    def __init__(self, file: Path) -> None:
        try:
            with tarfile.open(file, mode="r:") as tar:
                members = [member for member in tar if member.isfile()]
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{file}: is not an uncompressed tar ({error}); unpack it and give the folder") from error
        names = ((PurePosixPath(member.name), member) for member in members)
        photos = (
            (normalize_bin_id(name.stem), name, member)
            for name, member in names
            if name.suffix.lower() in PHOTO_SUFFIXES
        )
        self._members = _by_key(file, photos)
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


def _by_key(where: Path, photos: Iterable[tuple[str, PurePath, Place]]) -> dict[str, Place]:
    """Key → place, from keys with the names and places of their files. Raises DataError if two files have one key."""
    names: dict[str, PurePath] = {}
    places: dict[str, Place] = {}
    for key, name, place in photos:
        if key in names:
            raise DataError(f"{where}: {names[key]} and {name} are both photo {key}; keep one of them, or rename it")
        names[key], places[key] = name, place
    return places


def prepared_quality(folder: Path, size: int) -> int | None:
    """The `data.jpeg_quality` that photos stored by `prepare` in `folder` need, for a network with inputs of `size`.

    JPEGs keep the artefacts of their compression unless they are squashed once more. None if `prepare` did not make
    the folder.
    """
    file = folder / PREPARED
    if not file.is_file():
        return None
    kept = json.loads(file.read_text(encoding="utf-8"))
    return int(kept["jpeg_quality"]) if kept["size"] == size else 0


def check_there(path: Path) -> None:
    """Raise DataError if `path` does not exist. Its content is not read."""
    if not path.exists():
        raise DataError(f"{path}: no such folder or tar of photos")


def open_source(path: Path) -> PhotoSource:
    """The photos at `path`. Raises DataError if there are none."""
    check_there(path)
    source: PhotoSource = FolderSource(path) if path.is_dir() else TarSource(path)
    if not source.sizes():
        raise DataError(f"{path}: holds no photos ({PHOTO_SUFFIXES_TEXT})")
    return source
