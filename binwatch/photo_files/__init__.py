"""What is in a photo's file, read before any decoder sees it: one module for each format.

Each hands on the parts that the pixels are made of, and leaves out all others: a damaged or huge comment, profile or
EXIF block is no reason to refuse pixels that are whole, and a parser that is never given them cannot trip over them.
"""

from __future__ import annotations

from collections.abc import Callable

from binwatch.photo_files import bmp, gif, heif, jpeg, png, tiff, webp
from binwatch.photo_files.parsed_image import ParsedImage, is_webp

Read = Callable[[bytes], ParsedImage]
_READERS: dict[bytes, Read] = {
    b"\xff\xd8\xff": jpeg.read,
    b"\x89PNG": png.read,
    b"BM": bmp.read,
    b"GIF8": gif.read,
    **dict.fromkeys(tiff.STARTS, tiff.read),
}
"""By the first bytes, which decide. The name under which a photo was stored says nothing."""


def reader_of(data: bytes) -> Read | None:
    """What reads a file that begins so; None if it is of no format that is counted."""
    if is_webp(data):
        return webp.read
    if heif.is_heif(data):
        return heif.read
    return next((read for magic, read in _READERS.items() if data.startswith(magic)), None)
