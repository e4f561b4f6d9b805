"""JPEG: tables, frame and scans, decoded by libjpeg-turbo, whose warnings are errors here.

libjpeg fills missing parts with grey and warns, and Pillow discards the warnings: a photo without its lower half would
be counted as if it were complete. simplejpeg is a thin wrapper of the same library that reports warnings. Its pixels
are identical to Pillow's.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image

from binwatch.errors import PhotoError, Reason
from binwatch.photo_files.by_pillow import undecodable
from binwatch.photo_files.orientation import orientation
from binwatch.photo_files.parsed_image import MOST_SEGMENTS, ParsedImage, cut_off, damaged, header_damaged
from binwatch.photo_files.scans import Codes, Frame, Scan, constant_run, missing

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS, _DHT, _APP0, _APP1, _APP14 = 0xDA, 0xC4, 0xE0, 0xE1, 0xEE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment: TEM, the restart markers, and another SOI."""
MOST_SCANS = 100
"""A progressive photo has about ten scans. Decoding each takes a pass over all blocks, even if it has few bytes."""
_BLOCK = 2**16
"""Bytes searched for a marker at a time."""
_HARMLESS = re.compile(r"JFIF|Adobe|Invalid SOS parameters")
"""Warnings that do not concern the pixels: odd versions, and parameters that every decoder ignores."""
_SURPLUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_PADDING = 16
"""Most bytes of 0x00 or 0xFF before the end marker that count as padding, which some cameras write."""
_COLOURS = {"YCbCr": "RGB", "RGB": "RGB", "Gray": "RGB", "CMYK": "CMYK", "YCCK": "CMYK"}


@dataclass(slots=True)
class _File:
    kept: list[bytes] = field(default_factory=lambda: [_SOI])
    """Segments that the pixels need, in order."""
    frame: Frame | None = None
    scans: list[Scan] = field(default_factory=list)
    codes: Codes = field(default_factory=Codes)
    exif: bytes = b""
    xmp: bytes = b""
    ended: bool = False
    """Whether the file has an end marker. Without it, the pixels may still be complete."""


def read(data: bytes) -> ParsedImage:
    """Parse a JPEG. Raises PhotoError if it has no picture, or a part of the picture is missing."""
    file = _File()
    for marker, segment, scan in _segments(data):
        _take(file, marker, segment, scan)
    frame = file.frame
    if frame is None:
        raise header_damaged("JPEG")
    if not file.scans:
        raise header_damaged("JPEG") if file.ended else cut_off("the file ends before its pixels")
    if lost := missing(frame, file.scans):
        raise cut_off(lost)
    clean = b"".join([*file.kept, _EOI])
    return ParsedImage(
        "JPEG",
        frame.width,
        frame.height,
        memory=partial(_memory, frame, len(file.scans)),
        decode=partial(_decode, clean, frame, file.ended),
        orientation=orientation(file.exif, file.xmp),
    )


def _take(file: _File, marker: int, segment: bytes, scan: bytes) -> None:
    if marker == 0xD9:
        file.ended = True
        return
    body = segment[4:]
    if marker == _APP1:
        if body.startswith(b"Exif\0\0"):
            file.exif = file.exif or body
        elif body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            file.xmp = file.xmp or body
    if marker in _FRAMES:
        if file.frame is not None:
            raise damaged("two frames")
        file.frame = Frame.read(marker, body)
    elif marker == _DHT:
        file.codes.read(body)
    elif marker == _SOS:
        _take_scan(file, body, scan)
    is_pixels = marker < _APP0 or (marker == _APP0 and body.startswith(b"JFIF")) or marker == _APP14
    if is_pixels:
        file.kept += [segment, scan]


def _take_scan(file: _File, body: bytes, scan: bytes) -> None:
    if file.frame is None:
        raise header_damaged("JPEG")
    header = Scan.read(file.frame, body)
    file.scans.append(header)
    if len(file.scans) > MOST_SCANS:
        raise PhotoError(
            Reason.TOO_MANY_PIXELS, f"it has over {MOST_SCANS} scans, each of which takes time; save the photo again"
        )
    if not file.frame.progressive and constant_run(scan, file.codes.flat(file.frame, header)):
        raise damaged("a hole: bytes that are all the same")


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Segments up to the end marker: marker, segment with marker and length, and the data if it is a scan."""
    at = 2
    for _ in range(MOST_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if at + 2 > len(data):
            return
        if data[at] != 0xFF:
            raise damaged("no marker where one should be")
        marker = data[at + 1]
        if marker == 0xD9:
            yield marker, _EOI, b""
            return
        if marker in _ALONE:
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if end > len(data) or end < at + 4:
            if end < at + 4 <= len(data):
                raise header_damaged("JPEG")
            return
        if marker != _SOS:
            yield marker, data[at:end], b""
            at = end
            continue
        after = _scan_end(data, end)
        yield marker, data[at:end], data[end:after]
        at = after
    raise damaged(f"over {MOST_SEGMENTS:,} segments")


def _scan_end(data: bytes, at: int) -> int:
    """End of a scan's data: a 0xFF that is not followed by 0x00 (an escaped 0xFF), a restart marker or another 0xFF."""
    for start in range(at, len(data), _BLOCK):
        block = np.frombuffer(data[start : start + _BLOCK + 1], np.uint8)
        places = np.flatnonzero(block[:-1] == 0xFF)
        after = block[places + 1]
        ends = places[(after != 0) & (after != 0xFF) & ((after < 0xD0) | (after > 0xD7))]
        if len(ends):
            return start + int(ends[0])
    return len(data)


def _memory(frame: Frame, scans: int, side: int) -> int:
    """Bytes for the decoded pixels, as array and image, and with several scans for all coefficients."""
    scale = _scale(frame, side)
    pixels = -(-frame.width // scale) * -(-frame.height // scale)
    return 7 * pixels + (2 * frame.coefficients if frame.progressive or scans > 1 else 0)


def _scale(frame: Frame, side: int) -> int:
    """Divisor by which libjpeg scales while decoding, 1, 2, 4 or 8, such that no side is below `side`. Saves more than
    half of the work."""
    fits = min(frame.width // side, frame.height // side)
    return next((scale for scale in (8, 4, 2) if fits >= scale), 1)


def _decode(data: bytes, frame: Frame, ended: bool, side: int) -> Image.Image:
    try:
        return _checked(data, frame, side)
    except ValueError as error:
        words = str(error).rpartition(": ")[2]
        if "premature end" in words.lower() or not ended:
            raise cut_off(words) from error
        raise damaged(words) from error


def _checked(data: bytes, frame: Frame, side: int) -> Image.Image:
    """The picture, scaled. Raises ValueError with libjpeg's message if it is incomplete."""
    try:
        colours = _COLOURS[simplejpeg.decode_jpeg_header(data, strict=False)[2]]
    except KeyError:  # raised by simplejpeg for a subsampling without a name
        return _unchecked(data, side)
    except ValueError as error:
        if "subsampling" not in str(error):
            raise
        return _unchecked(data, side)
    try:
        return _picture(data, frame, side, colours, strict=True)
    except ValueError as error:
        if _HARMLESS.search(str(error)):
            return _picture(data, frame, side, colours, strict=False)
        if (padded := _SURPLUS.search(str(error))) and (bare := _without_padding(data, int(padded[1]))):
            return _picture(bare, frame, side, colours, strict=True)
        raise


def _picture(data: bytes, frame: Frame, side: int, colours: str, *, strict: bool) -> Image.Image:
    scale = _scale(frame, side)
    least = {"min_height": -(-frame.height // scale), "min_width": -(-frame.width // scale)}
    pixels = simplejpeg.decode_jpeg(data, colours, min_factor=scale, strict=strict, **least)
    # Adobe stores CMYK inverted, and Pillow treats every CMYK JPEG so.
    return Image.fromarray(pixels if colours == "RGB" else 255 - pixels, colours)


def _without_padding(data: bytes, surplus: int) -> bytes | None:
    end = len(data) - len(_EOI) - surplus
    is_padding = surplus <= _PADDING and not data[end : -len(_EOI)].strip(b"\0\xff")
    return data[:end] + _EOI if is_padding else None


def _unchecked(data: bytes, side: int) -> Image.Image:
    """Decode with Pillow, which also reads rare colour formats that simplejpeg does not, but reports no warnings."""
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        image.draft("RGB", (side, side))
        image.load()
    except Exception as error:  # Pillow may raise anything
        raise undecodable(error) from error
    return image
