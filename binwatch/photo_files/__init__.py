"""Parses photo files before any decoder reads them: one module for each format.

Each module passes only the parts that contain pixels to the decoder. A damaged or huge comment, profile or EXIF block
is no reason to refuse intact pixels, and a decoder that does not receive it cannot fail on it.
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
"""First bytes of a file → reader. The file's name is ignored."""


def reader_of(data: bytes) -> Read | None:
    """Return the reader for a file by its first bytes; None for an unsupported format."""
    if is_webp(data):
        return webp.read
    if heif.is_heif(data):
        return heif.read
    return next((read for magic, read in _READERS.items() if data.startswith(magic)), None)
