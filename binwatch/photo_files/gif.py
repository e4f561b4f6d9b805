"""Reads the first picture of GIF files, without comments and application data."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial

from PIL import Image

from binwatch.photo_files import by_pillow
from binwatch.photo_files.parsed_image import MAX_SEGMENTS, ParsedImage, damage_error, header_error, truncated_error

_EXTENSION, _PICTURE, _TRAILER = 0x21, 0x2C, b";"
_CONTROL = 0xF9
_HAS_TRANSPARENCY = 1
"""Flag in the control block."""


@dataclass(frozen=True, slots=True)
class _Gif:
    """The parts of a GIF that its first picture needs."""

    header: bytes
    """The header with its palette."""
    control: bytes
    """The control block before the picture, or empty."""
    picture: bytes
    box: tuple[int, int, int, int]
    """The picture's left, top, right and bottom edge on the canvas."""

    def to_bytes(self, transparent: int | None = None) -> bytes:
        """Return a GIF file with these parts.

        `transparent` replaces the index of the transparent colour, which pixels without data get.
        """
        control = self.control if transparent is None else bytes([_HAS_TRANSPARENCY, 0, 0, transparent])
        block = bytes([_EXTENSION, _CONTROL, len(control)]) + control + b"\0" if control else b""
        return self.header + block + self.picture + _TRAILER


def read(data: bytes) -> ParsedImage:
    """Parse a GIF. Raises PhotoError if it has no picture."""
    try:
        gif = _parse(data)
    except (IndexError, struct.error) as error:
        raise header_error("GIF") from error
    if gif is None:
        raise header_error("GIF")
    left, top, right, bottom = gif.box
    canvas_width, canvas_height = struct.unpack_from("<HH", gif.header, 6)
    width, height = max(canvas_width, right), max(canvas_height, bottom)
    if not (width and height and right > left and bottom > top):
        raise header_error("GIF")
    return ParsedImage("GIF", width, height, lambda _: 5 * width * height, partial(_decode, gif))


def _decode(gif: _Gif, side: int) -> Image.Image:
    """Decode the picture, and twice more with different transparent colours.

    If these two results differ, the data ends early, and the missing pixels have the transparent colour.
    """
    image = by_pillow.decode(gif.to_bytes(), "GIF", side)
    first, second = (by_pillow.decode(gif.to_bytes(colour), "GIF", side).crop(gif.box) for colour in (0, 1))
    if first.tobytes() != second.tobytes():
        raise truncated_error("its data end early")
    return image


def _parse(data: bytes) -> _Gif | None:
    """Return the parts up to the first picture; None if there is no picture."""
    offset = 13 + _palette_size(data[10])
    header, control = data[:offset], b""
    for _ in range(MAX_SEGMENTS):
        if data[offset] == _PICTURE:
            left, top, width, height, flags = struct.unpack_from("<HHHHB", data, offset + 1)
            end = _blocks_end(data, offset + 10 + _palette_size(flags) + 1)
            return _Gif(header, control, data[offset:end], (left, top, left + width, top + height))
        if data[offset] == _EXTENSION:
            if data[offset + 1] == _CONTROL:
                control = data[offset + 3 : offset + 3 + data[offset + 2]]
            offset = _blocks_end(data, offset + 2)
        elif data[offset : offset + 1] == _TRAILER:
            return None
        else:
            offset += 1  # like Pillow, skip bytes between blocks
    raise damage_error(f"over {MAX_SEGMENTS:,} blocks")


def _blocks_end(data: bytes, offset: int) -> int:
    """Return the end of the blocks at `offset`. Each block begins with its length, and the last one is empty."""
    while offset < len(data) and data[offset]:
        offset += 1 + data[offset]
    return offset + 1


def _palette_size(flags: int) -> int:
    """Return the size in bytes of the palette that follows, or 0."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
