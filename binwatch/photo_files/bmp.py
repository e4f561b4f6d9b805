"""Reads BMP files that are not compressed.

Run-length encoding is refused: cameras do not write it, and Pillow decodes it in Python, which takes a minute for a
photo of a few megabytes.
"""

from __future__ import annotations

import struct
from functools import partial

from binwatch.errors import PhotoError, Reason
from binwatch.photo_files.by_pillow import decode, open_image
from binwatch.photo_files.parsed_image import ParsedImage, header_error

_RUN_LENGTH_CODINGS = (1, 2)  # BI_RLE8, BI_RLE4


def read(data: bytes) -> ParsedImage:
    """Parse a BMP's header. Raises PhotoError."""
    if len(data) < 34:
        raise header_error("BMP")
    header_size, compression = struct.unpack_from("<I", data, 14)[0], struct.unpack_from("<I", data, 30)[0]
    if header_size >= 40 and compression in _RUN_LENGTH_CODINGS:
        raise PhotoError(
            Reason.UNSUPPORTED_FORMAT, "BMP with run-length coding is not counted; save it without, or as a PNG"
        )
    with open_image(data, "BMP") as image:
        width, height = image.size
        memory = width * height * (1 if image.mode in ("1", "L", "P") else 4)
    return ParsedImage("BMP", width, height, lambda _: memory, partial(decode, data, "BMP"))
