"""What the readers of all formats return, and how they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from binwatch.errors import PhotoError, Reason

Decode = Callable[[int], Image.Image]
"""Decodes a photo that will be squashed to a square of so many pixels a side. The image may be smaller than the photo,
if its decoder can scale, but no side is smaller than the square's."""

MOST_SEGMENTS = 100_000
"""Segments or chunks that a file may have. Real ones have a few thousand at most; to read millions takes seconds."""


@dataclass(frozen=True, slots=True)
class ParsedImage:
    """A photo's file, taken apart. Nothing is decoded yet."""

    format: str
    """Pillow's name of it."""
    width: int
    height: int
    memory: Callable[[int], int]
    """Bytes that `decode` takes at its peak, about; its argument is the same."""
    decode: Decode
    orientation: int = 1
    """How the photo must be turned, as EXIF numbers it: 1 to 8."""


def header_damaged(name: str) -> PhotoError:
    """The file breaks off or makes no sense before its pixels begin."""
    return PhotoError(Reason.CORRUPT, f"it starts like a {name} but its header is damaged or cut off")


def damaged(what: str) -> PhotoError:
    """The pixels cannot be had, or not those that were taken."""
    return PhotoError(Reason.CORRUPT, f"the image data is damaged ({what}); take or upload the photo again")


def cut_off(what: str) -> PhotoError:
    """A part of the pixels is not there."""
    return PhotoError(Reason.TRUNCATED, f"a part of the photo is missing ({what}); upload the photo again")


def is_webp(data: bytes) -> bool:
    """Whether the file begins like a WebP."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"
