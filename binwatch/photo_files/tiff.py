"""Reads the first page of TIFF files, which scanners write."""

from __future__ import annotations

from functools import partial
from typing import Literal

from binwatch.errors import PhotoError, Reason
from binwatch.photo_files.by_pillow import decode, open_image
from binwatch.photo_files.parsed_image import ParsedImage, header_error

STARTS = (b"II*\x00", b"MM\x00*")
_MAX_TAGS = 1000
"""Maximum number of tags of the first page. Real files have about twenty, and reading very many takes seconds."""
_BYTES_PER_PIXEL = 16
"""Memory for two copies in Pillow, which may rotate the picture, and for libtiff's strips."""


def read(data: bytes) -> ParsedImage:
    """Parse the tags of the first page. Raises PhotoError. Pillow applies the orientation tag when it decodes."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    offset = int.from_bytes(data[4:8], order)
    tags = int.from_bytes(data[offset : offset + 2], order)
    if not 0 < tags <= _MAX_TAGS:
        raise header_error("TIFF")
    with open_image(data, "TIFF") as image:
        width, height = image.size
        if image.mode.startswith("F"):
            raise PhotoError(
                Reason.UNSUPPORTED_FORMAT, "TIFF of numbers that are not whole is not counted; save it in 8 or 16 bits"
            )
    memory = width * height * _BYTES_PER_PIXEL
    return ParsedImage("TIFF", width, height, lambda _: memory, partial(decode, data, "TIFF"))
