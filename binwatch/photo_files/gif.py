"""GIF: the first picture, without comments and application data."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial

from PIL import Image

from binwatch.photo_files import by_pillow
from binwatch.photo_files.parsed_image import MOST_SEGMENTS, ParsedImage, cut_off, damaged, header_damaged

_EXTENSION, _PICTURE, _TRAILER = 0x21, 0x2C, b";"
_CONTROL = 0xF9
_TRANSPARENT = 1


@dataclass(frozen=True, slots=True)
class _Gif:
    """The parts of a GIF: header with palette, the control block before the picture (or empty), and the picture."""

    header: bytes
    control: bytes
    picture: bytes
    box: tuple[int, int, int, int]

    def file(self, transparent: int | None = None) -> bytes:
        """A GIF with these parts; `transparent` replaces the transparent colour, which pixels without data have."""
        control = self.control if transparent is None else bytes([_TRANSPARENT, 0, 0, transparent])
        block = bytes([_EXTENSION, _CONTROL, len(control)]) + control + b"\0" if control else b""
        return self.header + block + self.picture + _TRAILER


def read(data: bytes) -> ParsedImage:
    """Parse a GIF. Raises PhotoError if it has no picture."""
    try:
        gif = _taken_apart(data)
    except (IndexError, struct.error) as error:
        raise header_damaged("GIF") from error
    if gif is None:
        raise header_damaged("GIF")
    screen = struct.unpack_from("<HH", gif.header, 6)
    width, height = max(screen[0], gif.box[2]), max(screen[1], gif.box[3])
    if not (width and height and gif.box[2] > gif.box[0] and gif.box[3] > gif.box[1]):
        raise header_damaged("GIF")
    return ParsedImage("GIF", width, height, lambda _: 5 * width * height, partial(_decode, gif))


def _decode(gif: _Gif, side: int) -> Image.Image:
    """Decode with two different backgrounds. If the results differ, the data end early: the rest is background."""
    image = by_pillow.decode(gif.file(), "GIF", side)
    plain = [by_pillow.decode(gif.file(colour), "GIF", side).crop(gif.box) for colour in (0, 1)]
    if plain[0].tobytes() != plain[1].tobytes():
        raise cut_off("its data end early")
    return image


def _taken_apart(data: bytes) -> _Gif | None:
    at = 13 + _palette(data[10])
    header, control = data[:at], b""
    for _ in range(MOST_SEGMENTS):
        if data[at] == _PICTURE:
            left, top, width, height, flags = struct.unpack_from("<HHHHB", data, at + 1)
            end = _after_blocks(data, at + 10 + _palette(flags) + 1)
            return _Gif(header, control, data[at:end], (left, top, left + width, top + height))
        if data[at] == _EXTENSION:
            if data[at + 1] == _CONTROL:
                control = data[at + 3 : at + 3 + data[at + 2]]
            at = _after_blocks(data, at + 2)
        elif data[at : at + 1] == _TRAILER:
            return None
        else:
            at += 1  # like Pillow, skip bytes between blocks
    raise damaged(f"over {MOST_SEGMENTS:,} blocks")


def _after_blocks(data: bytes, at: int) -> int:
    """End of the blocks that start at `at`: each begins with its length, and an empty one is the last."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _palette(flags: int) -> int:
    """Size in bytes of the palette that follows, or 0."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
