"""Reads the first picture of WebP files, without the metadata around it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import partial

from binwatch.photo_files.by_pillow import decode
from binwatch.photo_files.orientation import orientation
from binwatch.photo_files.parsed_image import MAX_SEGMENTS, ParsedImage, damage_error, header_error

_CHUNK_NAME = re.compile(rb"[ -~]{4}")
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: colour profile, EXIF, XMP
_PIXEL_CHUNKS = (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_BYTES_PER_PIXEL = 16
"""Memory for libwebp's two canvases, its output, and Pillow's copy."""


def read(data: bytes) -> ParsedImage:
    """Parse a WebP. Raises PhotoError."""
    pixels: dict[bytes, bytes] = {}
    exif = xmp = b""
    for name, body in _chunks(data):
        if name in _PIXEL_CHUNKS:
            pixels.setdefault(name, body)  # only the first picture of an animation
        elif name == b"EXIF":
            exif = exif or body
        elif name == b"XMP ":
            xmp = xmp or body
    width, height = _size(pixels)
    if extended := pixels.get(b"VP8X"):
        pixels[b"VP8X"] = bytes([extended[0] & ~_METADATA_FLAGS]) + extended[1:]
    chunks = b"WEBP"
    for name in _PIXEL_CHUNKS:
        if name in pixels:
            size = len(pixels[name])
            chunks += name + struct.pack("<I", size) + pixels[name] + b"\0" * (size % 2)
    clean = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    return ParsedImage(
        "WEBP",
        width,
        height,
        lambda _: width * height * _BYTES_PER_PIXEL,
        partial(decode, clean, "WEBP"),
        orientation(exif, xmp),
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and contents of each chunk.

    Contents of odd length are followed by a byte of padding, which some writers forget.
    """
    offset = 12
    for _ in range(MAX_SEGMENTS):
        name = data[offset : offset + 4]
        if len(name) < 4:
            return
        end = offset + 8 + int.from_bytes(data[offset + 4 : offset + 8], "little")
        yield name, data[offset + 8 : end]
        padded_end = end + (end - offset) % 2
        lacks_padding = (
            padded_end != end
            and not _CHUNK_NAME.fullmatch(data[padded_end : padded_end + 4])
            and _CHUNK_NAME.fullmatch(data[end : end + 4])
        )
        offset = end if lacks_padding else padded_end
    raise damage_error(f"over {MAX_SEGMENTS:,} chunks")


def _size(pixels: dict[bytes, bytes]) -> tuple[int, int]:
    """Return width and height of the canvas, from the extended, lossy or lossless header."""
    if len(canvas := pixels.get(b"VP8X", b"")) >= 10:
        return int.from_bytes(canvas[4:7], "little") + 1, int.from_bytes(canvas[7:10], "little") + 1
    if b"VP8X" not in pixels:
        if len(lossy := pixels.get(b"VP8 ", b"")) >= 10 and lossy[3:6] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", lossy, 6)
            return width & 0x3FFF, height & 0x3FFF
        if len(lossless := pixels.get(b"VP8L", b"")) >= 5 and lossless[0] == 0x2F:
            (bits,) = struct.unpack_from("<I", lossless, 1)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise header_error("WEBP")
