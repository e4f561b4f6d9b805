"""WebP: the first picture, without the metadata around it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import partial

from binwatch.photo_files.by_pillow import decode
from binwatch.photo_files.orientation import orientation
from binwatch.photo_files.parsed_image import MOST_SEGMENTS, ParsedImage, damaged, header_damaged

_NAME = re.compile(rb"[ -~]{4}")
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: a profile, EXIF, XMP
_PIXELS = (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_BYTES_A_PIXEL = 16
"""libwebp's two canvases, its output, and Pillow's picture."""


def read(data: bytes) -> ParsedImage:
    """Parse a WebP. Raises PhotoError."""
    pixels: dict[bytes, bytes] = {}
    exif = xmp = b""
    for name, body in _chunks(data):
        if name in _PIXELS:
            pixels.setdefault(name, body)  # of an animation, the first picture
        elif name == b"EXIF":
            exif = exif or body
        elif name == b"XMP ":
            xmp = xmp or body
    width, height = _size(pixels)
    if extended := pixels.get(b"VP8X"):
        pixels[b"VP8X"] = bytes([extended[0] & ~_METADATA_FLAGS]) + extended[1:]
    chunks = b"WEBP"
    for name in _PIXELS:
        if name in pixels:
            size = len(pixels[name])
            chunks += name + struct.pack("<I", size) + pixels[name] + b"\0" * (size % 2)
    clean = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    return ParsedImage(
        "WEBP",
        width,
        height,
        lambda _: width * height * _BYTES_A_PIXEL,
        partial(decode, clean, "WEBP"),
        orientation(exif, xmp),
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and contents. Contents of an odd length are followed by a byte of padding, which some writers forget."""
    at = 12
    for _ in range(MOST_SEGMENTS):
        name = data[at : at + 4]
        if len(name) < 4:
            return
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        yield name, data[at + 8 : end]
        padded = end + (end - at) % 2
        forgotten = (
            padded != end and not _NAME.fullmatch(data[padded : padded + 4]) and _NAME.fullmatch(data[end : end + 4])
        )
        at = end if forgotten else padded
    raise damaged(f"over {MOST_SEGMENTS:,} chunks")


def _size(pixels: dict[bytes, bytes]) -> tuple[int, int]:
    """Width and height of the canvas, from the extended, lossy or lossless header."""
    if len(canvas := pixels.get(b"VP8X", b"")) >= 10:
        return int.from_bytes(canvas[4:7], "little") + 1, int.from_bytes(canvas[7:10], "little") + 1
    if b"VP8X" not in pixels:
        if len(lossy := pixels.get(b"VP8 ", b"")) >= 10 and lossy[3:6] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", lossy, 6)
            return width & 0x3FFF, height & 0x3FFF
        if len(lossless := pixels.get(b"VP8L", b"")) >= 5 and lossless[0] == 0x2F:
            (bits,) = struct.unpack_from("<I", lossless, 1)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise header_damaged("WEBP")
