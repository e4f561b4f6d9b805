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

from binwatch.bin_naming import BY_FILE_NAME, BinNaming
from binwatch.errors import ObjectsError
from binwatch.keys import METADATA_SUFFIX, ObjectKind, bin_of_key, kind_of
from binwatch.objects import ObjectRefused, Objects
from binwatch.settings import Settings
from binwatch.text import escape_unprintable, is_valid_unicode
from trainer.errors import ConfigError

PHOTOS, METADATA = "bin-images", "metadata"
PUBLIC = "aft-vbi-pds"
"""The Amazon Bin Image Dataset: no credentials, 535,234 photos."""

Index = dict[str, list[str]]
"""`bin-images/KEY` or `metadata/KEY` → names of the bin's files, relative to the place."""

_MD5 = re.compile(r"^[0-9a-f]{32}$")


class Missing(Exception):
    """A photo or metadata file does not exist, or access to it is denied. A retry will not help."""


class Damaged(Exception):
    """The received bytes are not the stored ones. A retry may help."""


class Place(Protocol):
    """Photos under `bin-images/` and metadata under `metadata/`. A key is a bin's id. Called from many threads at once.

    Without a bin naming (binwatch.bin_naming), the files of KEY are `bin-images/KEY.jpg` and `metadata/KEY.json`.
    A photo may have another format's suffix, and suffixes may be in capitals. Reading raises Missing, Damaged, or
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
class BucketPlace:
    """A bucket, or a prefix in it."""

    objects: Objects
    bucket: str
    prefix: str
    settings: Settings
    naming: BinNaming = BY_FILE_NAME

    @property
    def name(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def keys(self) -> Iterator[str]:
        for listed in self.objects.list(self.bucket, f"{self.prefix}{METADATA}/"):
            if listed.key.lower().endswith(METADATA_SUFFIX):
                yield self.naming(listed.key)

    @cached_property
    def _names(self) -> Index:
        """Index of all objects. Only needed if an object's name does not follow from its bin."""
        parts = (f"{self.prefix}{part}/" for part in (PHOTOS, METADATA))
        keys = (one.key for part in parts for one in self.objects.list(self.bucket, part))
        return _index(self.prefix, keys, self.naming)

    def photo(self, key: str) -> bytes:
        return self._fetch_either(f"{PHOTOS}/{key}", ".jpg", self.settings.max_photo_bytes)

    def metadata(self, key: str) -> bytes:
        return self._fetch_either(f"{METADATA}/{key}", METADATA_SUFFIX, self.settings.max_metadata_bytes)

    def _fetch_either(self, stem: str, usual: str, limit: int) -> bytes:
        """The object with the usual suffix; if there is none, the one with another possible suffix."""
        if self.naming is not BY_FILE_NAME:
            return self._fetch(_only(stem, self._names), limit)
        try:
            return self._fetch(stem + usual, limit)
        except Missing as error:
            other = self._with_other_suffix(stem, error)
        return self._fetch(other, limit)

    def _with_other_suffix(self, stem: str, error: Missing) -> str:
        """Name of the object. Raises `error` if there is none, or if it cannot be read or listed."""
        refused = error.__cause__
        if not isinstance(refused, ObjectRefused) or refused.reason != "missing":
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
        """The object, verified by its ETag if that is an MD5.

        If the bucket encrypts with KMS, the ETag only looks like an MD5. Then a second request returns the same bytes.
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
        raise Damaged(f"{self.name}{name}: the received bytes are damaged; check the network")


@dataclass(frozen=True)
class FolderPlace:
    """A folder in the same layout."""

    folder: Path
    naming: BinNaming = BY_FILE_NAME

    @property
    def name(self) -> str:
        return self.folder.name

    def keys(self) -> Iterator[str]:
        files = sorted((self.folder / METADATA).rglob("*"))
        for path in files:
            if not is_valid_unicode(path.name):
                raise ConfigError(
                    f"'{escape_unprintable(str(path))}': the name is not UTF-8, so it cannot be a key; rename the file"
                )
        names = (path.relative_to(self.folder).as_posix() for path in files)
        return (self.naming(name) for name in names if kind_of(name) is ObjectKind.METADATA)

    def photo(self, key: str) -> bytes:
        return self._read_either(f"{PHOTOS}/{key}", ".jpg")

    def metadata(self, key: str) -> bytes:
        return self._read_either(f"{METADATA}/{key}", METADATA_SUFFIX)

    @cached_property
    def _names(self) -> Index:
        """Index of all files, made once, because a folder may have half a million files."""
        files = (path for part in (PHOTOS, METADATA) for path in sorted((self.folder / part).rglob("*")))
        return _index("", (path.relative_to(self.folder).as_posix() for path in files), self.naming)

    def _read_either(self, stem: str, usual: str) -> bytes:
        if self.naming is BY_FILE_NAME:
            try:
                return self._read(self.folder / f"{stem}{usual}")
            except Missing:
                if stem not in self._names:
                    raise
        return self._read(self.folder / _only(stem, self._names))

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise Missing(f"{path.parent.name}/{path.name} does not exist") from error
        except OSError as error:
            raise ObjectsError(f"{path}: cannot be read ({error.strerror})") from error


def _index(prefix: str, keys: Iterable[str], naming: BinNaming) -> Index:
    found: Index = {}
    for key in keys:
        name = key.removeprefix(prefix)
        part = name.partition("/")[0]
        if kind_of(key) is (ObjectKind.METADATA if part == METADATA else ObjectKind.PHOTO):
            found.setdefault(f"{part}/{naming(key)}", []).append(name)
    return found


def _only(stem: str, index: Index) -> str:
    """The name of a bin's photo or metadata file. Raises Missing if there is not exactly one."""
    found = index.get(stem, [])
    part, _, bin_id = stem.partition("/")
    what = "metadata file" if part == METADATA else "photo"
    if not found:
        raise Missing(f"bin {bin_id} has no {what}")
    if len(found) > 1:
        raise Missing(f"{' and '.join(found)} are all of bin {bin_id}; keep one of them")
    return found[0]


def _other(stem: str, names: Iterable[str]) -> str | None:
    """The one of `names` with the bin and kind of `stem`; None if there is none. Raises Missing if several."""
    kind = ObjectKind.METADATA if stem.startswith(f"{METADATA}/") else ObjectKind.PHOTO
    found = [
        name for name in names if kind_of(name) is kind and f"{PurePosixPath(name).parent}/{bin_of_key(name)}" == stem
    ]
    if len(found) > 1:
        raise Missing(f"{' and '.join(found)} are all of bin {stem.rpartition('/')[2]}; keep one of them")
    return found[0] if found else None


def open_place(where: str, settings: Settings, endpoint: str | None = None, *, anonymous: bool = False) -> Place:
    """The place `s3://bucket/prefix` or a folder. Requests to the public bucket go to AWS without credentials."""
    naming = settings.bin_naming
    if not where.startswith("s3://"):
        folder = Path(where)
        if not (folder / METADATA).is_dir():
            raise ConfigError(
                f"{folder}: has no folder {METADATA}/ beside {PHOTOS}/; name a folder with both, or s3://BUCKET"
            )
        return FolderPlace(folder, naming)
    parts = urlsplit(where)
    if not parts.netloc:
        raise ConfigError(f"{where}: has no bucket; expected s3://BUCKET/PREFIX or a folder")
    public = parts.netloc == PUBLIC
    address = endpoint or (None if public else settings.s3_endpoint_url)
    objects = Objects(settings.model_copy(update={"s3_endpoint_url": address}), anonymous=anonymous or public)
    prefix = parts.path.strip("/")
    return BucketPlace(
        objects, parts.netloc, f"{prefix}/" if prefix else "", settings, BY_FILE_NAME if public else naming
    )


def _is_whole(data: bytes, etag: str) -> bool:
    return not _MD5.match(etag) or hashlib.md5(data, usedforsecurity=False).hexdigest() == etag
