"""A counted photo as a small JPEG. The bucket's own bytes are never served: they could be anything."""

from __future__ import annotations

import io

from PIL import ExifTags, Image
from sqlalchemy import Connection, select

from binwatch.errors import BinwatchError, PhotoError
from binwatch.image import FORMATS, Limits, load
from binwatch.objects import ObjectRefused, Objects
from binwatch.records.tables import Count
from monitor.records import Records

SIDE = 320
"""Longer side of the small photo, in pixels: twice what the page shows, for dense screens."""
QUALITY = 82
_TURNED = 5  # EXIF orientations 5 to 8 swap width and height


class NoPhoto(BinwatchError):
    """There is no such photo to show (any more). The message says why."""


class Photos:
    """Photos by the id of their count. A key or bucket that somebody asks for reaches nothing."""

    def __init__(self, records: Records, objects: Objects, limits: Limits) -> None:
        self._records = records
        self._objects = objects
        self._limits = limits

    def small(self, count_id: int) -> bytes:
        """JPEG of the very photo that was counted. Raises NoPhoto, RecordsDown, or ObjectsError for an outage."""
        bucket, key, etag = self._records.read(lambda connection: _photo_of(connection, count_id))
        try:
            fetched = self._objects.fetch(bucket, key, max_bytes=self._limits.max_bytes)
            if fetched.etag != etag:
                raise NoPhoto(f"{key!r} has been replaced since it was counted")
            return shrink(fetched.data, self._limits)
        except (ObjectRefused, PhotoError) as error:
            raise NoPhoto(str(error)) from error


def shrink(data: bytes, limits: Limits) -> bytes:
    """An upright JPEG of at most SIDE×SIDE pixels. Raises PhotoError for what cannot be decoded.

    The service has one decoder for strangers' bytes, and it makes squares; this stretches them back.
    """
    square = load(data, size=SIDE, limits=limits).pixels
    width, height = _upright_size(data)
    scale = SIDE / max(width, height)
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
