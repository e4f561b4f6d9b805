"""A counted photo as a JPEG of the monitor's own. The bucket's own bytes are never served: they could be anything."""

from __future__ import annotations

import io
from collections import OrderedDict
from enum import StrEnum
from threading import Lock

from PIL import ExifTags, Image
from sqlalchemy import Connection, select

from binwatch.errors import BinwatchError, PhotoError
from binwatch.image import FORMATS, Limits, load
from binwatch.objects import ObjectRefused, Objects
from binwatch.records.tables import Count
from monitor.records import Records

SIDE = 320
"""Longer side of the small photo, in pixels: twice what the page shows, for dense screens."""
LARGE_SIDE = 960
"""Longer side of the large photo at most: items can be told apart, and it is still decoded in a moment."""
KEPT = 512
"""Small photos that are kept, about 15 kB each: going back to a list costs the bucket nothing."""
QUALITY = 82
_TURNED = 5  # EXIF orientations 5 to 8 swap width and height


class NoPhoto(BinwatchError):
    """There is no such photo to show (any more). The message says why."""


class Size(StrEnum):
    """How large a photo is wanted."""

    SMALL = "small"
    LARGE = "large"


class Photos:
    """Photos by the id of their count. A key or bucket that somebody asks for reaches nothing."""

    def __init__(self, records: Records, objects: Objects, limits: Limits) -> None:
        self._records = records
        self._objects = objects
        self._limits = limits
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def small(self, count_id: int) -> bytes:
        """JPEG of the very photo that was counted. Raises NoPhoto, RecordsDown, or ObjectsError for an outage."""
        with self._lock:
            if count_id in self._kept:
                self._kept.move_to_end(count_id)
                return self._kept[count_id]
        jpeg = self._made(count_id, SIDE)
        with self._lock:
            self._kept[count_id] = jpeg
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return jpeg

    def large(self, count_id: int) -> bytes:
        """The same, large enough to count by."""
        return self._made(count_id, LARGE_SIDE)

    def of(self, count_id: int, size: Size) -> bytes:
        """Either of the two."""
        return self.large(count_id) if size is Size.LARGE else self.small(count_id)

    def _made(self, count_id: int, side: int) -> bytes:
        bucket, key, etag = self._records.read(lambda connection: _photo_of(connection, count_id))
        try:
            fetched = self._objects.fetch(bucket, key, max_bytes=self._limits.max_bytes)
            if fetched.etag != etag:
                raise NoPhoto(f"{key!r} has been replaced since it was counted")
            return shrink(fetched.data, self._limits, side)
        except (ObjectRefused, PhotoError) as error:
            raise NoPhoto(str(error)) from error


def shrink(data: bytes, limits: Limits, side: int = SIDE) -> bytes:
    """An upright JPEG of at most `side`×`side` pixels. Raises PhotoError for what cannot be decoded.

    The service has one decoder for strangers' bytes, and it makes squares; this stretches them back.
    """
    square = load(data, size=side, limits=limits).pixels
    width, height = _upright_size(data)
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    jpeg = io.BytesIO()
    Image.fromarray(square).resize(size, Image.Resampling.BILINEAR).save(jpeg, "JPEG", quality=QUALITY)
    return jpeg.getvalue()


def _upright_size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= _TURNED
    return (height, width) if turned else (width, height)


def _photo_of(connection: Connection, count_id: int) -> tuple[str, str, str]:
    row = connection.execute(select(Count.bucket, Count.key, Count.etag).where(Count.id == count_id)).one_or_none()
    if row is None:
        raise NoPhoto(f"there is no count {count_id}")
    return row.bucket, row.key, row.etag
