"""The result and the errors of the readers of all formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from binwatch.errors import PhotoError, Reason

Decode = Callable[[int], Image.Image]
"""Decodes a photo that will be squashed to a square; the argument is the square's side in pixels. If the decoder can
scale, the image may be smaller than the photo, but not smaller than the square."""

MOST_SEGMENTS = 100_000
"""Most segments or chunks of a file. Real files have at most a few thousand; reading millions takes seconds."""


@dataclass(frozen=True, slots=True)
class ParsedImage:
    """A parsed photo file. Nothing is decoded yet."""

    format: str
    """Pillow's name of the format."""
    width: int
    height: int
    memory: Callable[[int], int]
    """Approximate peak memory of `decode` in bytes, for the same argument."""
    decode: Decode
    orientation: int = 1
    """EXIF's orientation number, 1 to 8."""


def header_damaged(name: str) -> PhotoError:
    """The error for a file that is cut off or damaged before its pixels."""
    return PhotoError(Reason.CORRUPT, f"it starts like a {name} but its header is damaged or cut off")


def damaged(what: str) -> PhotoError:
    """The error for damaged pixel data."""
    return PhotoError(Reason.CORRUPT, f"the image data is damaged ({what}); take or upload the photo again")


def cut_off(what: str) -> PhotoError:
    """The error for missing pixel data."""
    return PhotoError(Reason.TRUNCATED, f"a part of the photo is missing ({what}); upload the photo again")


def is_webp(data: bytes) -> bool:
    """Whether the file starts like a WebP."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"
