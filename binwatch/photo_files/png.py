"""Reads PNG files. Each chunk has a checksum, so damage is detected reliably."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from functools import partial

from binwatch.photo_files.by_pillow import decode
from binwatch.photo_files.orientation import orientation
from binwatch.photo_files.parsed_image import MAX_SEGMENTS, ParsedImage, damage_error, header_error, truncated_error

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER, _PALETTE, _DATA, _END = b"IHDR", b"PLTE", b"IDAT", b"IEND"
_PIXEL_CHUNKS = (_HEADER, _PALETTE, _DATA)
"""Chunks that the decoder needs. Transparency is ignored, so transparent pixels keep their colours."""
_CHUNK_NAME = re.compile(rb"[A-Za-z]{4}")
_RESUME_CHUNKS = re.compile(rb"PLTE|IDAT|IEND")
"""Names of the chunks that are searched for after a damaged one."""
_MAX_TEXT_BYTES = 2**20
_BYTES_PER_PIXEL = {0: 1, 2: 4, 3: 1, 4: 4, 6: 4}
"""Bytes per pixel in Pillow by the header's colour type. Grey with 16 bits takes two."""


def read(data: bytes) -> ParsedImage:
    """Parse a PNG. Raises PhotoError if it has no pixels, or one of their chunks fails its checksum."""
    pixels: dict[bytes, list[bytes]] = {name: [] for name in _PIXEL_CHUNKS}
    exif = xmp = b""
    for name, body, is_intact in _chunks(data):
        if name in pixels:
            if is_intact is False:
                raise damage_error(f"the checksum of a chunk {name.decode()} is wrong")
            pixels[name].append(body)
        elif name == b"eXIf":
            exif = exif or body
        elif name in (b"iTXt", b"zTXt", b"tEXt") and is_intact:
            exif, xmp = _text_metadata(name, body, exif, xmp)
    header = pixels[_HEADER][0] if pixels[_HEADER] else b""
    if len(header) != 13:
        raise header_error("PNG")
    width, height, bits, colour = struct.unpack_from(">IIBB", header)
    if not (width and height):
        raise header_error("PNG")
    if not pixels[_DATA]:
        raise truncated_error("it ends before its pixels")
    clean = _SIGNATURE + _chunk(_HEADER, header)
    clean += b"".join(_chunk(_PALETTE, body) for body in pixels[_PALETTE][:1])
    clean += _chunk(_DATA, b"".join(pixels[_DATA])) + _chunk(_END, b"")
    memory = width * height * (2 if (bits, colour) == (16, 0) else _BYTES_PER_PIXEL.get(colour, 4))
    return ParsedImage("PNG", width, height, lambda _: memory, partial(decode, clean, "PNG"), orientation(exif, xmp))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool | None]]:
    """Yield name, contents and integrity of the chunks up to the end chunk.

    Integrity is whether the checksum is right, or None if the file ends before it. If a chunk that the pixels do not
    need has a wrong length, it is not yielded, and reading resumes at the next intact chunk that they need.
    """
    offset = len(_SIGNATURE)
    for _ in range(MAX_SEGMENTS):
        if offset + 8 > len(data):
            return
        name = data[offset + 4 : offset + 8]
        end = offset + 8 + int.from_bytes(data[offset : offset + 4])
        body = data[offset + 8 : end]
        is_intact = _is_intact(data, name, body, end)
        # If no chunk's name follows, the length is also wrong.
        if not is_intact and name not in _PIXEL_CHUNKS and not _CHUNK_NAME.fullmatch(data[end + 8 : end + 12]):
            offset = _find_intact_chunk(data, offset + 8)
            continue
        if name == _END:
            return
        yield name, body, is_intact
        offset = end + 4
    raise damage_error(f"over {MAX_SEGMENTS:,} chunks")


def _is_intact(data: bytes, name: bytes, body: bytes, end: int) -> bool | None:
    """Return whether the checksum at `end` is right; None if the file ends before it."""
    if end + 4 > len(data):
        return None
    return zlib.crc32(body, zlib.crc32(name)) == int.from_bytes(data[end : end + 4])


def _find_intact_chunk(data: bytes, offset: int) -> int:
    """Return the start of the next intact palette, data or end chunk, or the end of the data."""
    for match in _RESUME_CHUNKS.finditer(data, offset):
        end = match.end() + int.from_bytes(data[match.start() - 4 : match.start()])
        if _is_intact(data, match[0], data[match.end() : end], end):
            return match.start() - 4
    return len(data)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _text_metadata(name: bytes, body: bytes, exif: bytes, xmp: bytes) -> tuple[bytes, bytes]:
    """Return EXIF and XMP. Either is read from the text chunk if it is still empty and the chunk has it."""
    keyword, _, rest = body.partition(b"\0")
    if keyword == b"XML:com.adobe.xmp" and name == b"iTXt" and len(rest) > 2:
        compressed, (_, _, text) = rest[0], rest[2:].split(b"\0", 2) if rest[2:].count(b"\0") > 1 else (b"", b"", b"")
        return exif, xmp or (_decompress(text) if compressed else text)
    if keyword == b"Raw profile type exif" and name != b"iTXt":
        # ImageMagick's format: a name, a length, then hexadecimal digits.
        text = _decompress(rest[1:]) if name == b"zTXt" else rest
        try:
            return exif or bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:])), xmp
        except ValueError:
            return exif, xmp
    return exif, xmp


def _decompress(compressed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(compressed, _MAX_TEXT_BYTES)
    except zlib.error:
        return b""
