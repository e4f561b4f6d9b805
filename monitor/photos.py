"""Counted photos, re-encoded as JPEG. The original bytes are never served, because they could be anything."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, FromClause, and_, exists, func, not_, select

from binwatch.errors import BinwatchError, PhotoError, Reason
from binwatch.image import ImageLimits
from binwatch.objects import FetchedObject, ObjectRefused
from binwatch.records.tables import Count
from binwatch.thumbnails import MAX_SIDE, make_thumbnail
from monitor.records import Records

LARGE_SIDE = 960
"""Maximum length of the large photo's longer side in pixels: items can be distinguished, and decoding is still fast."""
MAX_CACHED_PHOTOS = 512
"""Maximum number of small photos in the cache, about 15 kB each, so that going back to a list fetches nothing."""


class Unavailable(StrEnum):
    """Why a photo cannot be shown. The set is closed: there is a picture for each (monitor/static/photo-*.svg)."""

    REPLACED = "replaced"
    """Another photo has been stored under its key, and the bucket keeps no versions."""
    GONE = "gone"
    UNREADABLE = "unreadable"
    """Not an image, too large, or access is denied."""
    OUTAGE = "outage"
    """The object store does not answer."""


class NoPhoto(BinwatchError):
    """The photo does not exist or cannot be shown any more. The message says why."""

    def __init__(self, message: str, reason: Unavailable) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Upload:
    """The version of an object that was counted."""

    bucket: str
    key: str
    etag: str
    version_id: str | None


class Size(StrEnum):
    """Sizes in which photos are served."""

    SMALL = "small"
    LARGE = "large"


class PhotoFetcher(Protocol):
    """Where photos are stored: a bucket or a folder."""

    def fetch(self, bucket: str, key: str, *, max_bytes: int, version_id: str | None = None) -> FetchedObject:
        """Fetch a photo. Raises ObjectRefused, or ObjectsError for an outage."""


class Photos:
    """Photos by the id of their count, so that requests cannot name a key or bucket."""

    def __init__(self, records: Records, source: PhotoFetcher, limits: ImageLimits) -> None:
        self._records = records
        self._source = source
        self._limits = limits
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def jpeg(self, count_id: int, size: Size) -> bytes:
        """Return the counted photo as JPEG. Raises NoPhoto, RecordsDown, or ObjectsError for an outage."""
        if size is Size.LARGE:
            return self._make_jpeg(count_id, LARGE_SIDE)
        with self._lock:
            if count_id in self._cache:
                self._cache.move_to_end(count_id)
                return self._cache[count_id]
        jpeg = self._make_jpeg(count_id, MAX_SIDE)
        with self._lock:
            self._cache[count_id] = jpeg
            while len(self._cache) > MAX_CACHED_PHOTOS:
                self._cache.popitem(last=False)
        return jpeg

    def _make_jpeg(self, count_id: int, side: int) -> bytes:
        data = self._fetch_upload(self._records.read(lambda connection: _read_upload(connection, count_id)))
        try:
            return make_thumbnail(data, self._limits, side)
        except PhotoError as error:
            raise NoPhoto(str(error), Unavailable.UNREADABLE) from error

    def _fetch_upload(self, upload: _Upload) -> bytes:
        """Fetch the bytes of exactly this upload: the object at its key, or an old version that the bucket keeps."""
        try:
            return self._fetch(upload, None)
        except NoPhoto:
            if upload.version_id is not None:
                with suppress(NoPhoto):
                    return self._fetch(upload, upload.version_id)
            raise

    def _fetch(self, upload: _Upload, version_id: str | None) -> bytes:
        max_bytes = self._limits.max_bytes
        try:
            fetched = self._source.fetch(upload.bucket, upload.key, max_bytes=max_bytes, version_id=version_id)
        except ObjectRefused as error:
            raise NoPhoto(
                str(error), Unavailable.GONE if error.reason == "missing" else Unavailable.UNREADABLE
            ) from error
        if fetched.etag != upload.etag:
            raise NoPhoto(f"{upload.key!r} has been replaced since it was counted", Unavailable.REPLACED)
        return fetched.data


def _read_upload(connection: Connection, count_id: int) -> _Upload:
    columns = select(Count.bucket, Count.key, Count.etag, Count.version_id, Count.reason)
    row = connection.execute(columns.where(Count.id == count_id)).one_or_none()
    if row is None:
        raise NoPhoto(f"there is no count {count_id}", Unavailable.GONE)
    if row.reason == Reason.CRASHED:
        raise NoPhoto(f"{row.key!r} crashed the workers that decoded it", Unavailable.UNREADABLE)
    return _Upload(*row[:4])


def was_replaced(latest: FromClause) -> ColumnElement[bool]:
    """Return the condition that another photo has replaced that of a row of `counts`; `latest` is its bin's last count.

    A photo that was uploaded again (A, then B, then A) is not replaced, although B was stored after the first A.
    """
    later = Count.__table__.alias("later")
    replaced = exists().where(
        later.c.bucket == Count.bucket,
        later.c.key == Count.key,
        later.c.etag.not_in((Count.etag, "")),
        later.c.modified_at > Count.modified_at,
    )
    is_latest = and_(latest.c.key == Count.key, latest.c.etag == Count.etag)
    return and_(replaced, func.coalesce(not_(is_latest), True))


def can_be_shown(reason: str | None, version_id: str | None, *, replaced: bool) -> bool:
    """Return whether a photo could be decoded when it was counted and, by the records, is still in its bucket."""
    # S3's "null" version is from before versioning was enabled: it is overwritten like any object.
    return reason in (None, Reason.INFERENCE_FAILED) and not (replaced and version_id in (None, "null"))
