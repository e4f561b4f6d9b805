"""A counted photo as a JPEG of the monitor's own. The bucket's own bytes are never served: they could be anything."""

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
"""Longer side of the large photo at most: items can be told apart, and it is still decoded in a moment."""
KEPT = 512
"""Small photos that are kept, about 15 kB each: going back to a list costs the bucket nothing."""


class Lost(StrEnum):
    """Why a photo cannot be shown. The set is closed: there is a picture for each (monitor/static/photo-*.svg)."""

    REPLACED = "replaced"
    """Another photo has its key, and the bucket keeps no versions."""
    GONE = "gone"
    UNREADABLE = "unreadable"
    """No image, too large, or not ours to read."""
    OUTAGE = "outage"
    """It may be there, but the store does not answer."""


class NoPhoto(BinwatchError):
    """There is no such photo to show (any more). The message says why."""

    def __init__(self, message: str, why: Lost) -> None:
        super().__init__(message)
        self.why = why


@dataclass(frozen=True, slots=True)
class _Upload:
    """The upload that was counted."""

    bucket: str
    key: str
    etag: str
    version_id: str | None


class Size(StrEnum):
    """How large a photo is wanted."""

    SMALL = "small"
    LARGE = "large"


class Fetches(Protocol):
    """Where photos are: a bucket, or a folder."""

    def fetch(self, bucket: str, key: str, *, max_bytes: int, version_id: str | None = None) -> FetchedObject:
        """One photo. Raises ObjectRefused, or ObjectsError for an outage."""


class Photos:
    """Photos by the id of their count: a request cannot name a key or bucket."""

    def __init__(self, records: Records, source: Fetches, limits: ImageLimits) -> None:
        self._records = records
        self._source = source
        self._limits = limits
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def of(self, count_id: int, size: Size) -> bytes:
        """JPEG of the very photo that was counted. Raises NoPhoto, RecordsDown, or ObjectsError for an outage."""
        if size is Size.LARGE:
            return self._made(count_id, LARGE_SIDE)
        with self._lock:
            if count_id in self._kept:
                self._kept.move_to_end(count_id)
                return self._kept[count_id]
        jpeg = self._made(count_id, MAX_SIDE)
        with self._lock:
            self._kept[count_id] = jpeg
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return jpeg

    def _made(self, count_id: int, side: int) -> bytes:
        data = self._data(self._records.read(lambda connection: _upload_of(connection, count_id)))
        try:
            return make_thumbnail(data, self._limits, side)
        except PhotoError as error:
            raise NoPhoto(str(error), Lost.UNREADABLE) from error

    def _data(self, of: _Upload) -> bytes:
        """The bytes of this very upload: the object at its key, or a version that the bucket has kept."""
        try:
            return self._fetch(of, None)
        except NoPhoto:
            if of.version_id is not None:
                with suppress(NoPhoto):
                    return self._fetch(of, of.version_id)
            raise

    def _fetch(self, of: _Upload, version_id: str | None) -> bytes:
        try:
            fetched = self._source.fetch(of.bucket, of.key, max_bytes=self._limits.max_bytes, version_id=version_id)
        except ObjectRefused as error:
            raise NoPhoto(str(error), Lost.GONE if error.reason == "missing" else Lost.UNREADABLE) from error
        if fetched.etag != of.etag:
            raise NoPhoto(f"{of.key!r} has been replaced since it was counted", Lost.REPLACED)
        return fetched.data


def _upload_of(connection: Connection, count_id: int) -> _Upload:
    upload = select(Count.bucket, Count.key, Count.etag, Count.version_id, Count.reason)
    row = connection.execute(upload.where(Count.id == count_id)).one_or_none()
    if row is None:
        raise NoPhoto(f"there is no count {count_id}", Lost.GONE)
    if row.reason == Reason.CRASHED:
        raise NoPhoto(f"{row.key!r} ended workers that decoded it", Lost.UNREADABLE)
    return _Upload(*row[:4])


def was_replaced(latest: FromClause) -> ColumnElement[bool]:
    """Whether another photo has taken the key of a row of `counts`; `latest` is the latest count of its bin.

    A photo that came back (A, then B, then A again) is what the key holds, though B was recorded after it.
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
    """Whether a photo was sound when it was counted, and its bucket still has it, as far as the records know."""
    # S3's "null" version is what a bucket holds of a time when it kept none: overwritten like any other object.
    return reason in (None, Reason.INFERENCE_FAILED) and not (replaced and version_id in (None, "null"))
