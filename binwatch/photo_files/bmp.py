"""BMP without compression.

Cameras do not write run-length coding, and Pillow decodes it in Python: a photo of a few megabytes would take a minute.
"""

from __future__ import annotations

import struct
from functools import partial

from binwatch.errors import PhotoError, Reason
from binwatch.photo_files.by_pillow import decode, opened
from binwatch.photo_files.parsed_image import ParsedImage, header_damaged

_RUN_LENGTHS = (1, 2)  # BI_RLE8, BI_RLE4


def read(data: bytes) -> ParsedImage:
    """Parse a BMP's header. Raises PhotoError."""
    if len(data) < 34:
        raise header_damaged("BMP")
    header, compression = struct.unpack_from("<I", data, 14)[0], struct.unpack_from("<I", data, 30)[0]
    if header >= 40 and compression in _RUN_LENGTHS:
        raise PhotoError(
            Reason.UNSUPPORTED_FORMAT, "BMP with run-length coding is not counted; save it without, or as a PNG"
        )
    with opened(data, "BMP") as image:
        width, height = image.size
        held = width * height * (1 if image.mode in ("1", "L", "P") else 4)
    return ParsedImage("BMP", width, height, lambda _: held, partial(decode, data, "BMP"))
