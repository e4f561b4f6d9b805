"""Small pictures of photos, for people."""

from __future__ import annotations

import io

from PIL import Image

from binwatch.image import ImageLimits, Photo, load

SIDE = 320
"""Longer side of a small photo, in pixels: twice what pages show, for dense screens."""
QUALITY = 82


def shrink(data: bytes, limits: ImageLimits, side: int = SIDE) -> bytes:
    """An upright JPEG of at most `side`×`side` pixels. Raises PhotoError for what cannot be decoded.

    The service has one decoder for strangers' bytes, and it makes squares; this stretches them back.
    """
    return shrink_decoded(load(data, size=side, limits=limits), side)


def shrink_decoded(photo: Photo, side: int = SIDE) -> bytes:
    """The same of a photo that was decoded to a square, for the model."""
    width, height = (photo.height, photo.width) if photo.turned else (photo.width, photo.height)
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    jpeg = io.BytesIO()
    Image.fromarray(photo.pixels).resize(size, Image.Resampling.BILINEAR).save(jpeg, "JPEG", quality=QUALITY)
    return jpeg.getvalue()
