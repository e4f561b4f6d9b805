"""Reads HEIF files (.heic), the photo format of phones, with pillow-heif if it is installed (extra `heic`)."""

from __future__ import annotations

from functools import partial
from typing import Any

from PIL import Image

from binwatch.errors import PhotoError, Reason
from binwatch.photo_files.by_pillow import pillow_error
from binwatch.photo_files.parsed_image import ParsedImage

_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})
"""Brands in the `ftyp` box of HEIF photos. AVIF files and videos have others."""
_BYTES_PER_PIXEL = 16
"""Memory for libheif's YUV planes, its RGB copy, and Pillow's copy."""


def is_heif(data: bytes) -> bool:
    """Return whether the file starts like a HEIF."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


def read(data: bytes) -> ParsedImage:
    """Parse the boxes before the pixels. Raises PhotoError, also if no decoder is installed."""
    try:
        import pillow_heif
    except ModuleNotFoundError as error:
        raise PhotoError(
            Reason.UNSUPPORTED_FORMAT,
            "HEIF (.heic), and pillow-heif is not installed (Binwatch's extra `heic`); install it, or send JPEG or PNG",
        ) from error
    try:
        photo = pillow_heif.open_heif(data)  # the primary picture; libheif turns it upright
        width, height = photo.size
    except Exception as error:  # ValueError, EOFError, SyntaxError, RuntimeError, OSError, depending on the damage
        raise pillow_error(error) from error
    return ParsedImage("HEIF", width, height, lambda _: width * height * _BYTES_PER_PIXEL, partial(_decode, photo))


def _decode(photo: Any, _: int) -> Image.Image:
    try:
        image: Image.Image = photo.to_pillow()
    except Exception as error:
        raise pillow_error(error) from error
    return image
