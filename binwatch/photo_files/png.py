"""PNG: header, palette and pixel data. Each chunk has a checksum, so damage is detected reliably."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from functools import partial

from binwatch.photo_files.by_pillow import decode
from binwatch.photo_files.orientation import orientation
from binwatch.photo_files.parsed_image import MOST_SEGMENTS, ParsedImage, cut_off, damaged, header_damaged

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER, _PALETTE, _DATA, _END = b"IHDR", b"PLTE", b"IDAT", b"IEND"
_PIXELS = (_HEADER, _PALETTE, _DATA)
"""Chunks that the pixels need. Transparency is ignored: pixels keep their colours."""
_NAME = re.compile(rb"[A-Za-z]{4}")
_NEXT = re.compile(rb"PLTE|IDAT|IEND")
_MOST_TEXT = 2**20
_BYTES_A_PIXEL = {0: 1, 2: 4, 3: 1, 4: 4, 6: 4}
"""Bytes per pixel in Pillow, by the header's colour type; 16 bits of grey take two."""


def read(data: bytes) -> ParsedImage:
    """Parse a PNG. Raises PhotoError if it has no pixels, or one of their chunks fails its checksum."""
    pixels: dict[bytes, list[bytes]] = {name: [] for name in _PIXELS}
    exif = xmp = b""
    for name, body, whole in _chunks(data):
        if name in pixels:
            if whole is False:
                raise damaged(f"the checksum of a chunk {name.decode()} is wrong")
            pixels[name].append(body)
        elif name == b"eXIf":
            exif = exif or body
        elif name in (b"iTXt", b"zTXt", b"tEXt") and whole:
            exif, xmp = _said(name, body, exif, xmp)
    header = pixels[_HEADER][0] if pixels[_HEADER] else b""
    if len(header) != 13:
        raise header_damaged("PNG")
    width, height, bits, colour = struct.unpack_from(">IIBB", header)
    if not (width and height):
        raise header_damaged("PNG")
    if not pixels[_DATA]:
        raise cut_off("it ends before its pixels")
    clean = _SIGNATURE + _chunk(_HEADER, header) + b"".join(_chunk(_PALETTE, body) for body in pixels[_PALETTE][:1])
    clean += _chunk(_DATA, b"".join(pixels[_DATA])) + _chunk(_END, b"")
    held = width * height * (2 if (bits, colour) == (16, 0) else _BYTES_A_PIXEL.get(colour, 4))
    return ParsedImage("PNG", width, height, lambda _: held, partial(decode, clean, "PNG"), orientation(exif, xmp))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool | None]]:
    """Chunks up to the end chunk: name, contents, and whether the checksum is right (None: the file ends before it).

    After a chunk with a wrong length, continues with the next intact chunk that matters.
    """
    at = len(_SIGNATURE)
    for _ in range(MOST_SEGMENTS):
        if at + 8 > len(data):
            return
        name = data[at + 4 : at + 8]
        end = at + 8 + int.from_bytes(data[at : at + 4])
        body = data[at + 8 : end]
        whole = _checked(data, name, body, end)
        # If no chunk's name follows, the length is wrong, too.
        if not whole and name not in _PIXELS and not _NAME.fullmatch(data[end + 8 : end + 12]):
            at = _next(data, at + 8)
            continue
        if name == _END:
            return
        yield name, body, whole
        at = end + 4
    raise damaged(f"over {MOST_SEGMENTS:,} chunks")


def _checked(data: bytes, name: bytes, body: bytes, end: int) -> bool | None:
    if end + 4 > len(data):
        return None
    return zlib.crc32(body, zlib.crc32(name)) == int.from_bytes(data[end : end + 4])


def _next(data: bytes, after: int) -> int:
    """Start of the next intact chunk that matters; else the end of the data."""
    for found in _NEXT.finditer(data, after):
        end = found.end() + int.from_bytes(data[found.start() - 4 : found.start()])
        if _checked(data, found[0], data[found.end() : end], end):
            return found.start() - 4
    return len(data)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _said(name: bytes, body: bytes, exif: bytes, xmp: bytes) -> tuple[bytes, bytes]:
    """EXIF and XMP from a text chunk, or those found before."""
    keyword, _, rest = body.partition(b"\0")
    if keyword == b"XML:com.adobe.xmp" and name == b"iTXt" and len(rest) > 2:
        compressed, (_, _, text) = rest[0], rest[2:].split(b"\0", 2) if rest[2:].count(b"\0") > 1 else (b"", b"", b"")
        return exif, xmp or (_unpacked(text) if compressed else text)
    if keyword == b"Raw profile type exif" and name != b"iTXt":
        # As ImageMagick wrote it: a name, a length, then hexadecimal digits.
        text = _unpacked(rest[1:]) if name == b"zTXt" else rest
        try:
            return exif or bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:])), xmp
        except ValueError:
            return exif, xmp
    return exif, xmp


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _MOST_TEXT)
    except zlib.error:
        return b""
