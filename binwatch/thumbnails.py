"""Makes thumbnails of photos."""

from __future__ import annotations

import io

from PIL import Image

from binwatch.image import ImageLimits, Photo, load_photo

MAX_SIDE = 320
"""Longer side of a thumbnail, in pixels: twice the size on pages, for high-density screens."""
JPEG_QUALITY = 82


def make_thumbnail(data: bytes, limits: ImageLimits, side: int = MAX_SIDE) -> bytes:
    """Make an upright JPEG of at most `side` × `side` pixels. Raises PhotoError if the photo cannot be decoded."""
    return thumbnail_of_photo(load_photo(data, size=side, limits=limits), side)


def thumbnail_of_photo(photo: Photo, side: int = MAX_SIDE) -> bytes:
    """Make a thumbnail of a decoded photo. Decoded photos are square, so the aspect ratio is restored here."""
    width, height = (photo.height, photo.width) if photo.sides_swapped else (photo.width, photo.height)
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    jpeg = io.BytesIO()
    Image.fromarray(photo.pixels).resize(size, Image.Resampling.BILINEAR).save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return jpeg.getvalue()
