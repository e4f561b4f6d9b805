"""Photo bytes → the model's input array, for both training and counting.

The whole photo is squashed to a square, since a centre crop would cut items off.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from binwatch.errors import PhotoError, Reason
from binwatch.photo_files import Read, reader_of
from binwatch.photo_files.budget import shared_budget
from binwatch.photo_files.parsed_image import ParsedImage

SIZE = 224
"""Side of the model's input, in pixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Decoded formats, by Pillow's names; also HEIF if pillow-heif is installed. Pillow reads many more, some with a
history of parser bugs."""

PILLOW_MAX_PIXELS = 89_478_485
"""Above this many pixels, Pillow warns of a decompression bomb (Image.MAX_IMAGE_PIXELS); it refuses twice as many."""

MAX_SIDE = 65_535
"""Longest side of a photo, in pixels: JPEG's limit. For longer sides, Pillow's resampling takes gigabytes."""

_STRIP = 2**18
"""Pixels that are converted to RGB at a time."""

# EXIF orientation → the transposition that undoes it (EXIF 2.32, section 4.6.4, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = 5  # and above: width and height change places


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits for a photo, checked before it is decoded.

    `max_pixels` beyond PILLOW_MAX_PIXELS has no effect, since Pillow refuses such an image.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_memory: int = 256 * 2**20
    """Bytes that decoding one photo may take."""
    decode_memory: int = 512 * 2**20
    """Bytes that all photos being decoded in this process may take. A photo waits until there is room."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded photo: `pixels` is uint8 (size, size, 3), RGB; width and height are the file's, in pixels."""

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    format: str
    turned: bool = False
    """Whether turning the photo upright swaps its width and height."""


def load(
    data: bytes, *, size: int = SIZE, limits: ImageLimits = ImageLimits(), jpeg_quality: int | None = None
) -> Photo:
    """Decode, turn upright and squash one photo.

    With `jpeg_quality`, the squashed photo is stored as a JPEG of that quality and read back, for a model that learned
    from such photos, and so from their compression artefacts. A photo that already is one hardly changes.

    Raises PhotoError with the reason if the bytes are empty, too many, not an image, truncated or damaged.
    """
    if not data:
        raise PhotoError(Reason.EMPTY, "the file is empty (0 bytes); upload the photo again")
    if len(data) > limits.max_bytes:
        raise PhotoError(Reason.TOO_LARGE, f"the file has {len(data):,} bytes, over the limit of {limits.max_bytes:,}")
    read = reader_of(data)
    if read is None:
        raise _unidentified(data)
    parts = _read(read, data)
    memory = parts.memory(size)
    _check_size(parts, memory, limits)
    with shared_budget(limits.decode_memory).reserved(memory):
        squashed = _squash(parts.decode(size), size)
    turn = _UPRIGHT.get(parts.orientation)
    if turn is not None:  # after squashing, which is cheaper and gives the same result
        squashed = squashed.transpose(turn)
    if jpeg_quality is not None:
        squashed = _stored_as_jpeg(squashed, jpeg_quality)
    return Photo(np.asarray(squashed), parts.width, parts.height, parts.format, parts.orientation >= _TURNED)


def _read(read: Read, data: bytes) -> ParsedImage:
    try:
        return read(data)
    except PhotoError:
        raise
    except Exception as error:  # a damaged header may raise anything
        raise PhotoError(Reason.CORRUPT, f"the image header is damaged ({error}); take the photo again") from error


def _check_size(parts: ParsedImage, memory: int, limits: ImageLimits) -> None:
    width, height = parts.width, parts.height
    if width * height > limits.max_pixels:
        raise PhotoError(
            Reason.TOO_MANY_PIXELS, f"{width}×{height} pixels over the limit of {limits.max_pixels:,} pixels"
        )
    if max(width, height) > MAX_SIDE:
        raise PhotoError(Reason.TOO_MANY_PIXELS, f"{width}×{height}: a side over the limit of {MAX_SIDE:,} pixels")
    if memory > limits.max_memory:
        raise PhotoError(
            Reason.TOO_MANY_PIXELS,
            f"{width}×{height} pixels of this {parts.format} take about {memory >> 20:,} MiB to decode, over"
            f" the limit of {limits.max_memory >> 20:,} MiB; reduce its resolution, or save it as a JPEG that is not"
            " progressive",
        )


def _squash(image: Image.Image, size: int) -> Image.Image:
    """Squash an image to a square in RGB.

    A large image in another mode is converted in strips, so that memory never holds it twice. Pillow resizes the width
    of each row first and then the height, so the result is the same.
    """
    width, height = image.size
    rows = max(1, _STRIP // width)
    if image.mode == "RGB" or height <= rows:
        return _rgb(image).resize((size, size), Image.Resampling.BILINEAR)
    narrow = Image.new("RGB", (size, height))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = _rgb(image.crop((0, top, width, bottom)))
        narrow.paste(strip.resize((size, bottom - top), Image.Resampling.BILINEAR), (0, top))
    return narrow.resize((size, size), Image.Resampling.BILINEAR)


def _stored_as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    image.info = {}  # the photo's own notes, such as a comment, would be stored, too
    # Pillow releases the interpreter lock while it encodes into a file of the system, but not into a BytesIO: with many
    # threads that load photos, all would wait for the one that encodes. macOS has no memfd_create.
    in_system = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create("photo"), "w+b", buffering=0) if in_system else io.BytesIO() as file:
        image.save(file, "JPEG", quality=quality)
        file.seek(0)
        stored = io.BytesIO(file.read())  # in one piece: Pillow reads headers byte by byte
    return Image.open(stored, formats=("JPEG",))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a channel: convert() would clip to white instead of scaling
        scaled = np.asarray(image) >> 8
        image = Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns that several transparent colours are lost
    return image if image.mode == "RGB" else image.convert("RGB")


# First bytes of images that are not decoded, for a helpful message.
_OTHER = {
    b"8BPS": "PSD",
    b"\x00\x00\x01\x00": "ICO",
    b"%PDF": "PDF",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
}


def _unidentified(data: bytes) -> PhotoError:
    for magic, name in _OTHER.items():
        if data.startswith(magic):
            return PhotoError(Reason.UNSUPPORTED_FORMAT, f"{name} files are not counted; send {', '.join(FORMATS)}")
    if data[4:8] == b"ftyp":
        return PhotoError(Reason.UNSUPPORTED_FORMAT, f"AVIF or video; send {', '.join(FORMATS)}")
    return PhotoError(Reason.NOT_AN_IMAGE, f"its first bytes, {data[:8]!r}, are not those of an image")
