"""Where photos come from: a bucket or a folder in the layout of the public data set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol
from unicodedata import normalize
from urllib.parse import urlsplit

from binwatch.errors import ObjectsError
from binwatch.keys import METADATA_SUFFIX, Kind, bin_of, kind_of
from binwatch.objects import ObjectRefused, Objects
from binwatch.settings import Settings
from binwatch.text import is_text, visible
from trainer.errors import ConfigError

PHOTOS, METADATA = "bin-images", "metadata"
PUBLIC = "aft-vbi-pds"
"""The Amazon Bin Image Dataset: no credentials, 535,234 photos."""

_MD5 = re.compile(r"^[0-9a-f]{32}$")


class Missing(Exception):
    """There is no such photo or metadata file, or it may not be had; asking again will not help."""


class Damaged(Exception):
    """What arrived is not what was stored; asking again may help."""


class Place(Protocol):
    """Photos at `bin-images/KEY.jpg` and metadata at `metadata/KEY.json`. Called from many threads at once.

    A photo may have the ending of another format, and endings may be in capitals. Reading raises Missing, Damaged, or
    ObjectsError for an outage.
    """

    @property
    def name(self) -> str:
        """For messages and the report."""

    def keys(self) -> Iterator[str]:
        """Every key that has metadata."""

    def photo(self, key: str) -> bytes:
        """The photo's file."""

    def metadata(self, key: str) -> bytes:
        """The metadata file."""


@dataclass(frozen=True)
class Bucket:
    """A bucket, or what is under a prefix of it."""

    objects: Objects
    bucket: str
    prefix: str
    settings: Settings

    @property
    def name(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def keys(self) -> Iterator[str]:
        for listed in self.objects.list(self.bucket, f"{self.prefix}{METADATA}/"):
            if listed.key.lower().endswith(METADATA_SUFFIX):
                yield bin_of(listed.key)

    def photo(self, key: str) -> bytes:
        return self._fetch_either(f"{PHOTOS}/{key}", ".jpg", self.settings.max_photo_bytes)

    def metadata(self, key: str) -> bytes:
        return self._fetch_either(f"{METADATA}/{key}", METADATA_SUFFIX, self.settings.max_metadata_bytes)

    def _fetch_either(self, stem: str, usual: str, limit: int) -> bytes:
        """The object with the usual ending; where there is none, the one with another that will do."""
        try:
            return self._fetch(stem + usual, limit)
        except Missing as error:
            other = self._with_other_ending(stem, error)
        return self._fetch(other, limit)

    def _with_other_ending(self, stem: str, error: Missing) -> str:
        """Name of the object. Raises `error` if there is none, or what is there may not be had or listed."""
        refused = error.__cause__
        if not isinstance(refused, ObjectRefused) or refused.why != "missing":
            raise error
        forms = sorted({stem, normalize("NFD", stem)})  # a key of a bin is in NFC, an object's as macOS wrote it
        try:
            listing = [one.key for form in forms for one in self.objects.list(self.bucket, f"{self.prefix}{form}.")]
        except ObjectRefused:
            raise error from None
        other = _other(stem, [key.removeprefix(self.prefix) for key in listing])
        if other is None:
            raise error
        return other

    def _fetch(self, name: str, limit: int) -> bytes:
        """The object, compared with its ETag where that is an MD5.

        It looks like one but is none if the bucket encrypts with KMS: then a second try brings the same bytes.
        """
        try:
            found = self.objects.fetch(self.bucket, self.prefix + name, max_bytes=limit)
            if _is_whole(found.data, found.etag):
                return found.data
            again = self.objects.fetch(self.bucket, self.prefix + name, max_bytes=limit)
        except ObjectRefused as error:
            raise Missing(str(error)) from error
        if _is_whole(again.data, again.etag) or again.data == found.data:
            return again.data
        raise Damaged(f"{self.name}{name}: arrives damaged; check the network")


@dataclass(frozen=True)
class Folder:
    """A folder in the same layout."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def keys(self) -> Iterator[str]:
        files = sorted((self.folder / METADATA).iterdir())
        for path in files:
            if not is_text(path.name):
                raise ConfigError(
                    f"'{visible(str(path))}': the name is not UTF-8, so it can be no key; rename the file"
                )
        return (bin_of(path.name) for path in files if kind_of(path.name) is Kind.METADATA)

    def photo(self, key: str) -> bytes:
        return self._read_either(f"{PHOTOS}/{key}", ".jpg")

    def metadata(self, key: str) -> bytes:
        return self._read_either(f"{METADATA}/{key}", METADATA_SUFFIX)

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Folder and stem → names of files; of all of them, once, since a folder may hold half a million."""
        found: dict[str, list[str]] = {}
        for part in (PHOTOS, METADATA):
            for path in sorted((self.folder / part).glob("*")):
                found.setdefault(f"{part}/{bin_of(path.name)}", []).append(f"{part}/{path.name}")
        return found

    def _read_either(self, stem: str, usual: str) -> bytes:
        try:
            return self._read(self.folder / f"{stem}{usual}")
        except Missing:
            other = _other(stem, self._names.get(stem, []))
            if other is None:
                raise
        return self._read(self.folder / other)

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise Missing(f"{path.parent.name}/{path.name} is not there") from error
        except OSError as error:
            raise ObjectsError(f"{path}: cannot be read ({error.strerror})") from error


def _other(stem: str, names: Iterable[str]) -> str | None:
    """The one of `names` of the bin and kind of `stem`; None if none is. Raises Missing if several are."""
    kind = Kind.METADATA if stem.startswith(f"{METADATA}/") else Kind.PHOTO
    found = [name for name in names if kind_of(name) is kind and f"{PurePosixPath(name).parent}/{bin_of(name)}" == stem]
    if len(found) > 1:
        raise Missing(f"{' and '.join(found)} are all {stem.rpartition('/')[2]}; keep one of them")
    return found[0] if found else None


def open_place(where: str, settings: Settings, endpoint: str | None = None, *, anonymous: bool = False) -> Place:
    """`s3://bucket/prefix` or a folder. The public bucket is always asked without credentials, at AWS."""
    if not where.startswith("s3://"):
        return _folder(Path(where))
    parts = urlsplit(where)
    if not parts.netloc:
        raise ConfigError(f"{where}: names no bucket; expected s3://BUCKET/PREFIX or a folder")
    public = parts.netloc == PUBLIC
    address = endpoint or (None if public else settings.s3_endpoint_url)
    objects = Objects(settings.model_copy(update={"s3_endpoint_url": address}), anonymous=anonymous or public)
    prefix = parts.path.strip("/")
    return Bucket(objects, parts.netloc, f"{prefix}/" if prefix else "", settings)


def _folder(folder: Path) -> Folder:
    if not (folder / METADATA).is_dir():
        raise ConfigError(
            f"{folder}: has no folder {METADATA}/ beside {PHOTOS}/; name a folder with both, or s3://BUCKET"
        )
    return Folder(folder)


def _is_whole(data: bytes, etag: str) -> bool:
    return not _MD5.match(etag) or hashlib.md5(data, usedforsecurity=False).hexdigest() == etag
