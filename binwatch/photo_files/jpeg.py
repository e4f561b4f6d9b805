"""Reads JPEG files with libjpeg-turbo, and treats its warnings as errors.

libjpeg fills missing parts with grey and emits a warning, which Pillow discards. A photo without its lower half would
then be counted as if it were complete. simplejpeg is a thin wrapper around the same library, and reports the warnings.
Its pixels are identical to Pillow's.
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
from binwatch.photo_files.by_pillow import pillow_error
from binwatch.photo_files.orientation import orientation
from binwatch.photo_files.parsed_image import MAX_SEGMENTS, ParsedImage, damage_error, header_error, truncated_error
from binwatch.photo_files.scans import Frame, Scan, ZeroCodes, has_constant_run, missing_scans

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS, _DHT, _APP0, _APP1, _APP14 = 0xDA, 0xC4, 0xE0, 0xE1, 0xEE
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment: TEM, the restart markers, and a repeated SOI."""
MAX_SCANS = 100
"""A progressive photo has about ten scans. Decoding each takes a pass over all blocks, even if it has few bytes."""
_SEARCH_BYTES = 2**16
"""Number of bytes that are searched for a marker at a time."""
_HARMLESS_WARNINGS = re.compile(r"JFIF|Adobe|Invalid SOS parameters")
"""Warnings that do not concern the pixels: odd versions, and parameters that every decoder ignores."""
_SURPLUS_WARNING = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_MAX_PADDING_BYTES = 16
"""Maximum number of bytes 0x00 or 0xFF before the end marker that count as padding, which some cameras write."""
_DECODED_COLOURS = {"YCbCr": "RGB", "RGB": "RGB", "Gray": "RGB", "CMYK": "CMYK", "YCCK": "CMYK"}


@dataclass(slots=True)
class _JpegFile:
    """The parts of a JPEG that have been read so far."""

    pixel_segments: list[bytes] = field(default_factory=lambda: [_SOI])
    """Segments that the decoder needs, in order."""
    frame: Frame | None = None
    scans: list[Scan] = field(default_factory=list)
    codes: ZeroCodes = field(default_factory=ZeroCodes)
    exif: bytes = b""
    xmp: bytes = b""
    has_end: bool = False
    """Whether the file has an end marker. The pixels may be complete without it."""


def read(data: bytes) -> ParsedImage:
    """Parse a JPEG. Raises PhotoError if it has no picture, or a part of the picture is missing."""
    file = _JpegFile()
    for marker, segment, scan in _segments(data):
        _read_segment(file, marker, segment, scan)
    frame = file.frame
    if frame is None:
        raise header_error("JPEG")
    if not file.scans:
        raise header_error("JPEG") if file.has_end else truncated_error("the file ends before its pixels")
    if reason := missing_scans(frame, file.scans):
        raise truncated_error(reason)
    pixel_data = b"".join([*file.pixel_segments, _EOI])
    return ParsedImage(
        "JPEG",
        frame.width,
        frame.height,
        memory=partial(_memory, frame, len(file.scans)),
        decode=partial(_decode, pixel_data, frame, file.has_end),
        orientation=orientation(file.exif, file.xmp),
    )


def _read_segment(file: _JpegFile, marker: int, segment: bytes, scan: bytes) -> None:
    if marker == 0xD9:
        file.has_end = True
        return
    body = segment[4:]
    if marker == _APP1:
        if body.startswith(b"Exif\0\0"):
            file.exif = file.exif or body
        elif body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            file.xmp = file.xmp or body
    if marker in _FRAME_MARKERS:
        if file.frame is not None:
            raise damage_error("two frames")
        file.frame = Frame.read(marker, body)
    elif marker == _DHT:
        file.codes.read(body)
    elif marker == _SOS:
        _read_scan(file, body, scan)
    is_pixels = marker < _APP0 or (marker == _APP0 and body.startswith(b"JFIF")) or marker == _APP14
    if is_pixels:
        file.pixel_segments += [segment, scan]


def _read_scan(file: _JpegFile, body: bytes, scan: bytes) -> None:
    if file.frame is None:
        raise header_error("JPEG")
    header = Scan.read(file.frame, body)
    file.scans.append(header)
    if len(file.scans) > MAX_SCANS:
        raise PhotoError(
            Reason.TOO_MANY_PIXELS, f"it has over {MAX_SCANS} scans, each of which takes time; save the photo again"
        )
    if not file.frame.progressive and has_constant_run(scan, file.codes.flat_unit(file.frame, header)):
        raise damage_error("a hole: bytes that are all the same")


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield each segment up to and including the end marker: marker, segment, and the scan data after it.

    The segment includes its marker and length. The scan data is empty except after the header of a scan.
    """
    offset = 2
    for _ in range(MAX_SEGMENTS):
        while data[offset : offset + 2] == b"\xff\xff":  # fill bytes
            offset += 1
        if offset + 2 > len(data):
            return
        if data[offset] != 0xFF:
            raise damage_error("no marker where one should be")
        marker = data[offset + 1]
        if marker == 0xD9:
            yield marker, _EOI, b""
            return
        if marker in _STANDALONE_MARKERS:
            offset += 2
            continue
        end = offset + 2 + int.from_bytes(data[offset + 2 : offset + 4])
        if end > len(data) or end < offset + 4:
            if end < offset + 4 <= len(data):
                raise header_error("JPEG")
            return
        scan_end = _scan_end(data, end) if marker == _SOS else end
        yield marker, data[offset:end], data[end:scan_end]
        offset = scan_end
    raise damage_error(f"over {MAX_SEGMENTS:,} segments")


def _scan_end(data: bytes, offset: int) -> int:
    """Return the end of the scan data at `offset`.

    It is the first 0xFF that is not followed by 0x00 (an escaped 0xFF), a restart marker or another 0xFF.
    """
    for start in range(offset, len(data), _SEARCH_BYTES):
        block = np.frombuffer(data[start : start + _SEARCH_BYTES + 1], np.uint8)
        positions = np.flatnonzero(block[:-1] == 0xFF)
        following = block[positions + 1]
        ends = positions[(following != 0) & (following != 0xFF) & ((following < 0xD0) | (following > 0xD7))]
        if len(ends):
            return start + int(ends[0])
    return len(data)


def _memory(frame: Frame, scans: int, side: int) -> int:
    """Return the bytes that the pixels take as array and image and, with several scans, those of all coefficients."""
    scale = _scale(frame, side)
    pixels = -(-frame.width // scale) * -(-frame.height // scale)
    return 7 * pixels + (2 * frame.coefficients if frame.progressive or scans > 1 else 0)


def _scale(frame: Frame, side: int) -> int:
    """Return the divisor, 1, 2, 4 or 8, by which libjpeg scales while decoding, so that no side is below `side`.

    Scaling saves more than half of the work.
    """
    largest = min(frame.width // side, frame.height // side)
    return next((scale for scale in (8, 4, 2) if scale <= largest), 1)


def _decode(data: bytes, frame: Frame, has_end: bool, side: int) -> Image.Image:
    try:
        return _decode_strictly(data, frame, side)
    except ValueError as error:
        message = str(error).rpartition(": ")[2]
        if "premature end" in message.lower() or not has_end:
            raise truncated_error(message) from error
        raise damage_error(message) from error


def _decode_strictly(data: bytes, frame: Frame, side: int) -> Image.Image:
    """Decode the picture, scaled. Raises ValueError with libjpeg's message if it is incomplete."""
    try:
        colours = _DECODED_COLOURS[simplejpeg.decode_jpeg_header(data, strict=False)[2]]
    except KeyError:  # raised by simplejpeg for a subsampling without a name
        return _decode_with_pillow(data, side)
    except ValueError as error:
        if "subsampling" not in str(error):
            raise
        return _decode_with_pillow(data, side)
    try:
        return _decode_scaled(data, frame, side, colours, strict=True)
    except ValueError as error:
        if _HARMLESS_WARNINGS.search(str(error)):
            return _decode_scaled(data, frame, side, colours, strict=False)
        surplus = _SURPLUS_WARNING.search(str(error))
        if surplus and (unpadded := _without_padding(data, int(surplus[1]))):
            return _decode_scaled(unpadded, frame, side, colours, strict=True)
        raise


def _decode_scaled(data: bytes, frame: Frame, side: int, colours: str, *, strict: bool) -> Image.Image:
    scale = _scale(frame, side)
    size = {"min_height": -(-frame.height // scale), "min_width": -(-frame.width // scale)}
    pixels = simplejpeg.decode_jpeg(data, colours, min_factor=scale, strict=strict, **size)
    # Adobe stores CMYK inverted, and Pillow assumes this for every CMYK JPEG.
    return Image.fromarray(pixels if colours == "RGB" else 255 - pixels, colours)


def _without_padding(data: bytes, surplus: int) -> bytes | None:
    """Remove `surplus` bytes before the end marker; None if they are not padding."""
    end = len(data) - len(_EOI) - surplus
    is_padding = surplus <= _MAX_PADDING_BYTES and not data[end : -len(_EOI)].strip(b"\0\xff")
    return data[:end] + _EOI if is_padding else None


def _decode_with_pillow(data: bytes, side: int) -> Image.Image:
    """Decode with Pillow, which reads rare colour formats that simplejpeg does not, but reports no warnings."""
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        image.draft("RGB", (side, side))
        image.load()
    except Exception as error:  # Pillow may raise anything
        raise pillow_error(error) from error
    return image
