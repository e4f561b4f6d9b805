"""Find and load the photos of the command `count`: in files, folders and S3 prefixes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from binwatch.bundle import Card
from binwatch.errors import BinwatchError, PhotoError, Reason
from binwatch.file_type import SIGNATURE_LENGTH, is_photo
from binwatch.image import ImageLimits, Photo
from binwatch.keys import PHOTO_SUFFIXES_TEXT, ObjectKind, kind_of, skip_reason
from binwatch.settings import Settings
from worker.skipped import SkippedTally

if TYPE_CHECKING:
    from binwatch.objects import Objects

S3_SCHEME = "s3://"
"""Prefix of a place in an object store; all other places are on this machine."""


@dataclass(frozen=True, slots=True)
class NamedPhoto:
    """A photo to count: its name, and a function that reads its bytes, or raises PhotoError."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A loaded photo, or the error that prevented loading it."""

    name: str
    photo: Photo | None = None
    error: PhotoError | None = None


def find_photos(places: Sequence[str], settings: Settings, skipped: SkippedTally) -> Iterator[NamedPhoto]:
    """Yield every photo in `places`; add other files and objects to `skipped`.

    Raises BinwatchError for a place that does not exist or has no photos.
    """
    for place in places:
        is_empty = True
        find_in_place = _find_in_bucket if place.startswith(S3_SCHEME) else _find_in_path
        for source in find_in_place(place, settings, skipped):
            is_empty = False
            yield source
        if is_empty:
            raise BinwatchError(f"{place}: no photos here ({PHOTO_SUFFIXES_TEXT})")


def make_loader(card: Card, limits: ImageLimits) -> Callable[[NamedPhoto], LoadedFile]:
    """Create a function that loads one photo for the card's model, and returns the error of a bad photo."""

    def load_one(source: NamedPhoto) -> LoadedFile:
        try:
            return LoadedFile(source.name, card.load_photo(source.read(), limits))
        except PhotoError as error:
            return LoadedFile(source.name, error=error)

    return load_one


def _find_in_path(place: str, settings: Settings, skipped: SkippedTally) -> Iterator[NamedPhoto]:
    path = Path(place)
    if not os.path.lexists(path):
        raise BinwatchError(f"{path}: does not exist; name a photo, a folder or s3://bucket/prefix")
    if path.is_dir():
        for file in sorted(files_below(path)):
            if kind_of(file.name) is ObjectKind.PHOTO or has_photo(file):
                yield file_source(file, settings.max_photo_bytes)
            else:
                skipped.add_one(str(file), skip_reason(file.name))
    else:
        yield file_source(path, settings.max_photo_bytes)  # named explicitly, so tried whatever its suffix


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files, including dangling links. Raises BinwatchError for a folder that cannot be read."""

    def raise_unreadable(error: OSError) -> None:
        raise BinwatchError(f"{error.filename}: cannot be listed ({error.strerror}); allow it, or remove it")

    for parent, _, names in os.walk(folder, onerror=raise_unreadable):
        files = (Path(parent, name) for name in names)
        yield from (file for file in files if file.is_file() or file.is_symlink())


def has_photo(file: Path) -> bool:
    """Return whether the content of the file is a photo, whatever its name."""
    try:
        with file.open("rb") as stream:
            return is_photo(stream.read(SIGNATURE_LENGTH))
    except OSError:
        return False


def file_source(path: Path, max_bytes: int) -> NamedPhoto:
    """Return the photo in a file of at most `max_bytes`."""

    def read() -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)  # not by the file's size, which pipes and devices lack
        except PermissionError as error:
            raise PhotoError(Reason.FORBIDDEN, f"may not be read: {error.strerror}") from error
        except OSError as error:
            raise PhotoError(Reason.MISSING, f"cannot be read: {error.strerror}") from error
        if len(data) > max_bytes:
            raise PhotoError(Reason.TOO_LARGE, f"the file has over {max_bytes:,} bytes, the limit")
        return data

    return NamedPhoto(str(path), read)


def _find_in_bucket(url: str, settings: Settings, skipped: SkippedTally) -> Iterator[NamedPhoto]:
    from binwatch.objects import Objects  # importing boto3 takes a third of a second, and local files do not need it

    bucket, _, prefix = url.removeprefix(S3_SCHEME).partition("/")
    objects = Objects(settings)
    for listed in objects.list(bucket, prefix):
        if kind_of(listed.key, settings.models_prefix) is ObjectKind.PHOTO:
            read = partial(_read_object, objects, bucket, listed.key, settings.max_photo_bytes)
            yield NamedPhoto(f"{S3_SCHEME}{bucket}/{listed.key}", read)
        else:
            skipped.add_one(listed.key, skip_reason(listed.key, settings.models_prefix, settings.nightly_prefix))


def _read_object(objects: Objects, bucket: str, key: str, max_bytes: int) -> bytes:
    from binwatch.objects import ObjectRefused

    try:
        return objects.fetch(bucket, key, max_bytes=max_bytes).data
    except ObjectRefused as error:
        raise PhotoError(Reason(error.reason), str(error)) from error
