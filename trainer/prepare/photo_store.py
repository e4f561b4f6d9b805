"""Sources of photos and metadata: a bucket or a folder with the layout of the public data set."""

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
PUBLIC_BUCKET = "aft-vbi-pds"
"""The Amazon Bin Image Dataset: no credentials, 535,234 photos."""

Index = dict[str, list[str]]
"""`bin-images/KEY` or `metadata/KEY` → names of the bin's files, relative to the store."""

_MD5 = re.compile(r"^[0-9a-f]{32}$")


class MissingFileError(Exception):
    """A photo or metadata file does not exist, cannot be fetched, or is one of several. A retry will not help."""


class DamagedFileError(Exception):
    """The received bytes differ from the stored ones. A retry may help."""


class PhotoStore(Protocol):
    """Photos under `bin-images/` and metadata under `metadata/`. A key is a bin's id. Must be thread-safe.

    Without a bin naming (binwatch.bin_naming), the files of KEY are `bin-images/KEY.jpg` and `metadata/KEY.json`.
    A photo may have another format's suffix, and suffixes may be in capitals. Reading a file raises MissingFileError,
    DamagedFileError, or ObjectsError for an outage.
    """

    @property
    def name(self) -> str:
        """The store's name, for messages and the report."""

    def keys(self) -> Iterator[str]:
        """Yield every key that has metadata."""

    def photo(self, key: str) -> bytes:
        """Read the photo file of a bin."""

    def metadata(self, key: str) -> bytes:
        """Read the metadata file of a bin."""


@dataclass(frozen=True)
class BucketStore:
    """Photos and metadata in a bucket, below a prefix."""

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
        """Index of all objects, for bin namings other than BY_FILE_NAME."""
        prefixes = (f"{self.prefix}{folder}/" for folder in (PHOTOS, METADATA))
        keys = (listed.key for prefix in prefixes for listed in self.objects.list(self.bucket, prefix))
        return _build_index(self.prefix, keys, self.naming)

    def photo(self, key: str) -> bytes:
        return self._fetch_by_stem(f"{PHOTOS}/{key}", ".jpg", self.settings.max_photo_bytes)

    def metadata(self, key: str) -> bytes:
        return self._fetch_by_stem(f"{METADATA}/{key}", METADATA_SUFFIX, self.settings.max_metadata_bytes)

    def _fetch_by_stem(self, stem: str, suffix: str, max_bytes: int) -> bytes:
        """Fetch the object with the given suffix, or if there is none, with another possible suffix."""
        if self.naming is not BY_FILE_NAME:
            return self._fetch(_sole_file(stem, self._names), max_bytes)
        try:
            return self._fetch(stem + suffix, max_bytes)
        except MissingFileError as error:
            name = self._find_other_suffix(stem, error)
        return self._fetch(name, max_bytes)

    def _find_other_suffix(self, stem: str, error: MissingFileError) -> str:
        """Return the name of the object with another suffix. Raises `error` if there is none or access is denied."""
        refused = error.__cause__
        if not isinstance(refused, ObjectRefused) or refused.reason != "missing":
            raise error
        forms = sorted({stem, normalize("NFD", stem)})  # bin keys are in NFC, but macOS writes names in NFD
        try:
            keys = [each.key for form in forms for each in self.objects.list(self.bucket, f"{self.prefix}{form}.")]
        except ObjectRefused:
            raise error from None
        name = _match_stem(stem, [key.removeprefix(self.prefix) for key in keys])
        if name is None:
            raise error
        return name

    def _fetch(self, name: str, max_bytes: int) -> bytes:
        """Fetch an object, and verify it by its ETag if that is an MD5.

        If the bucket encrypts with KMS, the ETag only looks like an MD5. So on a mismatch the object is fetched again,
        and accepted if the bytes are the same.
        """
        try:
            first = self.objects.fetch(self.bucket, self.prefix + name, max_bytes=max_bytes)
            if _matches_etag(first.data, first.etag):
                return first.data
            second = self.objects.fetch(self.bucket, self.prefix + name, max_bytes=max_bytes)
        except ObjectRefused as error:
            raise MissingFileError(str(error)) from error
        if _matches_etag(second.data, second.etag) or second.data == first.data:
            return second.data
        raise DamagedFileError(f"{self.name}{name}: the received bytes are damaged; check the network")


@dataclass(frozen=True)
class FolderStore:
    """Photos and metadata in a folder."""

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
        return self._read_by_stem(f"{PHOTOS}/{key}", ".jpg")

    def metadata(self, key: str) -> bytes:
        return self._read_by_stem(f"{METADATA}/{key}", METADATA_SUFFIX)

    @cached_property
    def _names(self) -> Index:
        """Index of all files. It is built only once, because a folder may have half a million files."""
        files = (path for name in (PHOTOS, METADATA) for path in sorted((self.folder / name).rglob("*")))
        return _build_index("", (path.relative_to(self.folder).as_posix() for path in files), self.naming)

    def _read_by_stem(self, stem: str, suffix: str) -> bytes:
        """Read the file with the given suffix, or if there is none, with another possible suffix."""
        if self.naming is BY_FILE_NAME:
            try:
                return self._read(self.folder / f"{stem}{suffix}")
            except MissingFileError:
                if stem not in self._names:
                    raise
        return self._read(self.folder / _sole_file(stem, self._names))

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise MissingFileError(f"{path.parent.name}/{path.name} does not exist") from error
        except OSError as error:
            raise ObjectsError(f"{path}: cannot be read ({error.strerror})") from error


def _build_index(prefix: str, keys: Iterable[str], naming: BinNaming) -> Index:
    index: Index = {}
    for key in keys:
        name = key.removeprefix(prefix)
        folder = name.partition("/")[0]
        if kind_of(key) is (ObjectKind.METADATA if folder == METADATA else ObjectKind.PHOTO):
            index.setdefault(f"{folder}/{naming(key)}", []).append(name)
    return index


def _sole_file(stem: str, index: Index) -> str:
    """Return the name of a bin's photo or metadata file. Raises MissingFileError unless there is exactly one."""
    names = index.get(stem, [])
    folder, _, bin_id = stem.partition("/")
    kind = "metadata file" if folder == METADATA else "photo"
    if not names:
        raise MissingFileError(f"bin {bin_id} has no {kind}")
    if len(names) > 1:
        raise MissingFileError(f"{' and '.join(names)} are all of bin {bin_id}; keep one of them")
    return names[0]


def _match_stem(stem: str, names: Iterable[str]) -> str | None:
    """Return the name that has the bin and kind of `stem`, or None. Raises MissingFileError if there are several."""
    kind = ObjectKind.METADATA if stem.startswith(f"{METADATA}/") else ObjectKind.PHOTO
    same_kind = (name for name in names if kind_of(name) is kind)
    matches = [name for name in same_kind if f"{PurePosixPath(name).parent}/{bin_of_key(name)}" == stem]
    if len(matches) > 1:
        raise MissingFileError(f"{' and '.join(matches)} are all of bin {stem.rpartition('/')[2]}; keep one of them")
    return matches[0] if matches else None


def open_store(source: str, settings: Settings, endpoint: str | None = None, *, anonymous: bool = False) -> PhotoStore:
    """Open `s3://BUCKET/PREFIX` or a folder. Requests to the public bucket go to AWS without credentials."""
    naming = settings.bin_naming
    if not source.startswith("s3://"):
        folder = Path(source)
        if not (folder / METADATA).is_dir():
            raise ConfigError(
                f"{folder}: has no folder {METADATA}/ beside {PHOTOS}/; name a folder with both, or s3://BUCKET"
            )
        return FolderStore(folder, naming)
    parts = urlsplit(source)
    if not parts.netloc:
        raise ConfigError(f"{source}: has no bucket; expected s3://BUCKET/PREFIX or a folder")
    public = parts.netloc == PUBLIC_BUCKET
    address = endpoint or (None if public else settings.s3_endpoint_url)
    objects = Objects(settings.model_copy(update={"s3_endpoint_url": address}), anonymous=anonymous or public)
    prefix = parts.path.strip("/")
    return BucketStore(
        objects, parts.netloc, f"{prefix}/" if prefix else "", settings, BY_FILE_NAME if public else naming
    )


def _matches_etag(data: bytes, etag: str) -> bool:
    """Return whether `etag` is the MD5 of `data`, or no MD5 at all."""
    return not _MD5.match(etag) or hashlib.md5(data, usedforsecurity=False).hexdigest() == etag
