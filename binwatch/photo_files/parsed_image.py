"""The result and the errors that the readers of all formats share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from binwatch.errors import PhotoError, Reason

Decode = Callable[[int], Image.Image]
"""Function that decodes a photo, which will then be resized to a square, given the square's side in pixels. The result
may be smaller than the photo if the decoder can scale, but not smaller than the square."""

MAX_SEGMENTS = 100_000
"""Maximum number of segments or chunks in a file. Real files have at most a few thousand; millions take seconds to
read."""


@dataclass(frozen=True, slots=True)
class ParsedImage:
    """A parsed photo file that is not decoded yet."""

    format: str
    """Pillow's name for the format."""
    width: int
    height: int
    memory: Callable[[int], int]
    """Function that returns the approximate peak memory of `decode` in bytes, for the same argument."""
    decode: Decode
    orientation: int = 1
    """EXIF's orientation number, 1 to 8."""


def header_error(name: str) -> PhotoError:
    """Return the error for a file that is truncated or damaged before its pixels."""
    return PhotoError(Reason.CORRUPT, f"it starts like a {name} but its header is damaged or cut off")


def damage_error(detail: str) -> PhotoError:
    """Return the error for damaged pixel data."""
    return PhotoError(Reason.CORRUPT, f"the image data is damaged ({detail}); take or upload the photo again")


def truncated_error(detail: str) -> PhotoError:
    """Return the error for missing pixel data."""
    return PhotoError(Reason.TRUNCATED, f"a part of the photo is missing ({detail}); upload the photo again")


def is_webp(data: bytes) -> bool:
    """Return whether the file starts like a WebP."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"
