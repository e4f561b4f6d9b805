"""The photos of the command `count`: in files, folders and S3 prefixes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from binwatch.bundle import Card
from binwatch.errors import BinwatchError, PhotoError, Reason
from binwatch.file_type import MAGIC_BYTES, is_photo
from binwatch.image import ImageLimits, Photo
from binwatch.keys import PHOTO_SUFFIXES_TEXT, ObjectKind, kind_of, skip_reason
from binwatch.settings import Settings
from worker.skipped import SkippedTally

if TYPE_CHECKING:
    from binwatch.objects import Objects

S3 = "s3://"
"""How a place begins that is not on this machine."""


@dataclass(frozen=True, slots=True)
class NamedPhoto:
    """A photo to count: its name, and a function that reads its bytes (raises PhotoError if they cannot be read)."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A photo, or the error that prevented it."""

    name: str
    photo: Photo | None = None
    error: PhotoError | None = None


def find(places: Sequence[str], settings: Settings, skipped: SkippedTally) -> Iterator[NamedPhoto]:
    """Every photo in `places`. Other files and objects are added to `skipped`.

    Raises BinwatchError for a place that does not exist or has no photo.
    """
    for place in places:
        found = False
        in_place = _in_prefix if place.startswith(S3) else _in_path
        for source in in_place(place, settings, skipped):
            found = True
            yield source
        if not found:
            raise BinwatchError(f"{place}: no photos here ({PHOTO_SUFFIXES_TEXT})")


def loader(card: Card, limits: ImageLimits) -> Callable[[NamedPhoto], LoadedFile]:
    """A function that loads one photo for the card's model, and does not raise for a bad photo."""

    def load_one(source: NamedPhoto) -> LoadedFile:
        try:
            return LoadedFile(source.name, card.load_photo(source.read(), limits))
        except PhotoError as error:
            return LoadedFile(source.name, error=error)

    return load_one


def _in_path(place: str, settings: Settings, skipped: SkippedTally) -> Iterator[NamedPhoto]:
    path = Path(place)
    if not os.path.lexists(path):
        raise BinwatchError(f"{path}: does not exist; name a photo, a folder or s3://bucket/prefix")
    if path.is_dir():
        for file in sorted(files_below(path)):
            if kind_of(file.name) is ObjectKind.PHOTO or has_photo(file):
                yield file_source(file, settings.max_photo_bytes)
            else:
                skipped.add_name(str(file), skip_reason(file.name))
    else:
        yield file_source(path, settings.max_photo_bytes)  # named explicitly, so tried whatever its suffix


def files_below(folder: Path) -> Iterator[Path]:
    """All files, including dangling links. Raises BinwatchError for a folder that cannot be read."""

    def refuse(error: OSError) -> None:
        raise BinwatchError(f"{error.filename}: cannot be listed ({error.strerror}); allow it, or remove it")

    for parent, _, names in os.walk(folder, onerror=refuse):
        files = (Path(parent, name) for name in names)
        yield from (file for file in files if file.is_file() or file.is_symlink())


def has_photo(file: Path) -> bool:
    """Whether the file's content is a photo's, whatever its name is."""
    try:
        with file.open("rb") as opened:
            return is_photo(opened.read(MAGIC_BYTES))
    except OSError:
        return False


def file_source(path: Path, max_bytes: int) -> NamedPhoto:
    """A photo in a file."""

    def read() -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)  # not by its size, which pipes and devices lack
        except PermissionError as error:
            raise PhotoError(Reason.FORBIDDEN, f"may not be read: {error.strerror}") from error
        except OSError as error:
            raise PhotoError(Reason.MISSING, f"cannot be read: {error.strerror}") from error
        if len(data) > max_bytes:
            raise PhotoError(Reason.TOO_LARGE, f"the file has over {max_bytes:,} bytes, the limit")
        return data

    return NamedPhoto(str(path), read)


def _in_prefix(url: str, settings: Settings, skipped: SkippedTally) -> Iterator[NamedPhoto]:
    from binwatch.objects import Objects  # importing boto3 takes a third of a second, and local files do not need it

    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    objects = Objects(settings)
    for listed in objects.list(bucket, prefix):
        if kind_of(listed.key, settings.models_prefix) is ObjectKind.PHOTO:
            yield NamedPhoto(f"s3://{bucket}/{listed.key}", _object_reader(objects, bucket, listed.key, settings))
        else:
            skipped.add_name(listed.key, skip_reason(listed.key, settings.models_prefix, settings.nightly_prefix))


def _object_reader(objects: Objects, bucket: str, key: str, settings: Settings) -> Callable[[], bytes]:
    from binwatch.objects import ObjectRefused

    def read() -> bytes:
        try:
            return objects.fetch(bucket, key, max_bytes=settings.max_photo_bytes).data
        except ObjectRefused as error:
            raise PhotoError(Reason(error.reason), str(error)) from error

    return read
