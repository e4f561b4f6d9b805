"""Decodes photo bytes to the model's input array, for training and for counting.

The whole photo is resized to a square without keeping its aspect ratio, since a centre crop would cut items off.
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

INPUT_SIZE = 224
"""Side of the model's input, in pixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Supported formats, by Pillow's names; HEIF is supported if pillow-heif is installed. Pillow reads many more formats,
and some of its parsers have a history of bugs."""

PILLOW_MAX_PIXELS = 89_478_485
"""Pillow's Image.MAX_IMAGE_PIXELS. Above it, Pillow warns of a decompression bomb; above twice as many pixels, it
refuses the image."""

MAX_SIDE = 65_535
"""Maximum side of a photo in pixels, which is JPEG's limit. For longer sides, Pillow's resampling takes gigabytes."""

_STRIP_PIXELS = 2**18
"""Number of pixels converted to RGB at a time."""

# EXIF orientation → the transposition that turns the photo upright (EXIF 2.32, section 4.6.4, tag 0x0112).
_UPRIGHT_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MIN_SWAPPED_ORIENTATION = 5
"""Lowest EXIF orientation whose transposition swaps width and height; all higher ones do, too."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits for a photo, checked before it is decoded.

    `max_pixels` should not exceed PILLOW_MAX_PIXELS, above which Pillow has limits of its own.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_memory: int = 256 * 2**20
    """Maximum memory for decoding one photo, in bytes."""
    decode_memory: int = 512 * 2**20
    """Maximum memory for all photos being decoded in this process, in bytes. Further photos wait."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded photo: `pixels` is uint8 (size, size, 3), RGB; `width` and `height` are those of the file."""

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    format: str
    sides_swapped: bool = False
    """Whether turning the photo upright swapped its width and height."""


def load_photo(
    data: bytes, *, size: int = INPUT_SIZE, limits: ImageLimits = ImageLimits(), jpeg_quality: int | None = None
) -> Photo:
    """Decode a photo, turn it upright and resize it to a `size` × `size` square.

    With `jpeg_quality`, the resized photo is also compressed as a JPEG of that quality and decoded again. This is for
    models trained on such JPEGs, with their compression artefacts. A photo that is already such a JPEG hardly changes.

    Raises PhotoError with the reason if the data are empty, too large, in an unsupported format, truncated or damaged.
    """
    if not data:
        raise PhotoError(Reason.EMPTY, "the file is empty (0 bytes); upload the photo again")
    if len(data) > limits.max_bytes:
        raise PhotoError(Reason.TOO_LARGE, f"the file has {len(data):,} bytes, over the limit of {limits.max_bytes:,}")
    reader = reader_of(data)
    if reader is None:
        raise _unsupported_error(data)
    parsed = _parse_header(reader, data)
    memory = parsed.memory(size)
    _check_size(parsed, memory, limits)
    with shared_budget(limits.decode_memory).reserved(memory):
        square = _squash(parsed.decode(size), size)
    transpose = _UPRIGHT_TRANSPOSE.get(parsed.orientation)
    if transpose is not None:  # after resizing, which is cheaper and gives the same result
        square = square.transpose(transpose)
    if jpeg_quality is not None:
        square = _jpeg_round_trip(square, jpeg_quality)
    sides_swapped = parsed.orientation >= _MIN_SWAPPED_ORIENTATION
    return Photo(np.asarray(square), parsed.width, parsed.height, parsed.format, sides_swapped)


def _parse_header(reader: Read, data: bytes) -> ParsedImage:
    try:
        return reader(data)
    except PhotoError:
        raise
    except Exception as error:  # a damaged header may raise any exception
        raise PhotoError(Reason.CORRUPT, f"the image header is damaged ({error}); take the photo again") from error


def _check_size(parsed: ParsedImage, memory: int, limits: ImageLimits) -> None:
    width, height = parsed.width, parsed.height
    if width * height > limits.max_pixels:
        raise PhotoError(
            Reason.TOO_MANY_PIXELS, f"{width}×{height} pixels over the limit of {limits.max_pixels:,} pixels"
        )
    if max(width, height) > MAX_SIDE:
        raise PhotoError(Reason.TOO_MANY_PIXELS, f"{width}×{height}: a side over the limit of {MAX_SIDE:,} pixels")
    if memory > limits.max_memory:
        raise PhotoError(
            Reason.TOO_MANY_PIXELS,
            f"{width}×{height} pixels of this {parsed.format} take about {memory >> 20:,} MiB to decode, over"
            f" the limit of {limits.max_memory >> 20:,} MiB; reduce its resolution, or save it as a JPEG that is not"
            " progressive",
        )


def _squash(image: Image.Image, size: int) -> Image.Image:
    """Resize an image to an RGB square without keeping its aspect ratio.

    A large image in another mode is converted in strips, so that memory never holds it twice. The result is the same,
    since Pillow itself resizes the width first, row by row, and then the height.
    """
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    if image.mode == "RGB" or height <= rows:
        return _to_rgb(image).resize((size, size), Image.Resampling.BILINEAR)
    narrow = Image.new("RGB", (size, height))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = _to_rgb(image.crop((0, top, width, bottom)))
        narrow.paste(strip.resize((size, bottom - top), Image.Resampling.BILINEAR), (0, top))
    return narrow.resize((size, size), Image.Resampling.BILINEAR)


def _jpeg_round_trip(image: Image.Image, quality: int) -> Image.Image:
    """Compress an image as a JPEG and open the JPEG."""
    image.info = {}  # otherwise Pillow also writes the photo's metadata, such as a comment
    # Pillow releases the interpreter lock while it encodes to a file descriptor, but not to a BytesIO: if many threads
    # load photos, all would wait for the one that encodes. macOS has no memfd_create.
    has_memfd = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create("photo"), "w+b", buffering=0) if has_memfd else io.BytesIO() as file:
        image.save(file, "JPEG", quality=quality)
        file.seek(0)
        jpeg = io.BytesIO(file.read())  # in one piece, since Pillow reads headers byte by byte
    return Image.open(jpeg, formats=("JPEG",))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per channel: convert() would clip to white instead of scaling
        scaled = np.asarray(image) >> 8
        image = Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns if transparency is lost in a direct conversion to RGB
    return image if image.mode == "RGB" else image.convert("RGB")


# Signatures of formats that are recognised but not decoded, so that the message can name them.
_UNDECODED_FORMATS = {
    b"8BPS": "PSD",
    b"\x00\x00\x01\x00": "ICO",
    b"%PDF": "PDF",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
}


def _unsupported_error(data: bytes) -> PhotoError:
    for magic, name in _UNDECODED_FORMATS.items():
        if data.startswith(magic):
            return PhotoError(Reason.UNSUPPORTED_FORMAT, f"{name} files are not counted; send {', '.join(FORMATS)}")
    if data[4:8] == b"ftyp":
        return PhotoError(Reason.UNSUPPORTED_FORMAT, f"AVIF or video; send {', '.join(FORMATS)}")
    return PhotoError(Reason.NOT_AN_IMAGE, f"its first bytes, {data[:8]!r}, are not those of an image")
