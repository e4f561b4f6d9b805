"""TIFF, the format of scanners: the first page."""

from __future__ import annotations

from functools import partial

from binwatch.errors import PhotoError, Reason
from binwatch.photo_files.by_pillow import decode, opened
from binwatch.photo_files.parsed_image import ParsedImage, header_damaged

STARTS = (b"II*\x00", b"MM\x00*")
_MOST_TAGS = 1000
"""Most tags of the first page. Real files have about twenty, and reading very many takes seconds."""
_BYTES_A_PIXEL = 16
"""Pillow's picture twice, since it may be turned, and libtiff's strips."""


def read(data: bytes) -> ParsedImage:
    """Parse the tags of the first page. Raises PhotoError. Pillow turns the photo upright by its tag."""
    order = "little" if data.startswith(b"II") else "big"
    at = int.from_bytes(data[4:8], order)  # type: ignore[arg-type]
    tags = int.from_bytes(data[at : at + 2], order)  # type: ignore[arg-type]
    if not 0 < tags <= _MOST_TAGS:
        raise header_damaged("TIFF")
    with opened(data, "TIFF") as image:
        width, height = image.size
        if image.mode.startswith("F"):
            raise PhotoError(
                Reason.UNSUPPORTED_FORMAT, "TIFF of numbers that are not whole is not counted; save it in 8 or 16 bits"
            )
    return ParsedImage("TIFF", width, height, lambda _: width * height * _BYTES_A_PIXEL, partial(decode, data, "TIFF"))
