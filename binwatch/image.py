"""Photo bytes → the array that the model sees. The one place where this is done, for training and for counting.

The whole photo is squashed to a square: a centre crop would cut items off.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from binwatch.errors import PhotoError, Reason

SIZE = 224
"""Side of the square that the model sees, in pixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""What is decoded, by Pillow's names. Pillow knows many more, some with a history of parser bugs."""

PILLOW_MAX_PIXELS = 89_478_485
"""Pillow warns of a decompression bomb above this many pixels (Image.MAX_IMAGE_PIXELS) and refuses twice as many."""

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


@dataclass(frozen=True, slots=True)
class Limits:
    """What a photo may cost, checked before it is decoded.

    `max_pixels` beyond PILLOW_MAX_PIXELS has no effect: Pillow refuses such an image by itself.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded photo: `pixels` is uint8 (size, size, 3), RGB; width and height are the original's, in pixels."""

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    format: str


def load(data: bytes, *, size: int = SIZE, limits: Limits = Limits(), jpeg_quality: int | None = None) -> Photo:
    """Decode, turn upright and squash one photo.

    With `jpeg_quality`, the squashed photo is stored as a JPEG of that quality and read back, for a model that learned
    from photos stored so: it has learned the traces that this leaves. To such a photo it does next to nothing.

    Raises PhotoError with the reason if the bytes are empty, too many, not an image, truncated or damaged.
    """
    if not data:
        raise PhotoError(Reason.EMPTY, "the file is empty (0 bytes); upload the photo again")
    if len(data) > limits.max_bytes:
        raise PhotoError(Reason.TOO_LARGE, f"the file has {len(data):,} bytes, over the limit of {limits.max_bytes:,}")
    with _open(data, limits) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise _too_many_pixels(f"{width}×{height} pixels", limits)
        name = image.format or "unknown"
        squashed = _squash(image, size)
        if jpeg_quality is not None:
            squashed = _stored_as_jpeg(squashed, jpeg_quality)
        pixels = np.asarray(squashed)
    return Photo(pixels, width, height, name)


def _open(data: bytes, limits: Limits) -> Image.Image:
    """Read the header; pixels are decoded later."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels("the header promises more pixels than Pillow accepts,", limits) from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Exception as error:  # a damaged header raises whatever the format's parser trips over
        raise PhotoError(Reason.CORRUPT, f"the image header is damaged ({error}); take the photo again") from error


def _squash(image: Image.Image, size: int) -> Image.Image:
    try:
        # libjpeg scales by 1/2, 1/4 or 1/8 while decoding, never below `size`: less than half the work.
        image.draft("RGB", (size, size))
        image.load()
        rgb = _rgb(image).resize((size, size), Image.Resampling.BILINEAR)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise _undecodable(error) from error
    turn = _turn(image)
    if turn is not None:  # after squashing to a square, which is cheaper and gives the same
        rgb = rgb.transpose(turn)
    return rgb


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns the photo upright. Damaged EXIF data says nothing: no reason to refuse pixels that are whole."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF parser raises SyntaxError, struct.error, KeyError, …
        return None


def _stored_as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    image.info = {}  # what a photo says of itself (a comment, say) would be stored, too
    with _file_in_memory() as file:
        image.save(file, "JPEG", quality=quality)
        file.seek(0)
        stored = io.BytesIO(file.read())  # at once: Pillow reads headers byte by byte
    return Image.open(stored, formats=("JPEG",))


def _file_in_memory() -> IO[bytes]:
    """Into a file of the system Pillow encodes without the interpreter lock, into a BytesIO with it: with many threads
    that load photos, all would wait for the one that encodes.
    """
    if hasattr(os, "memfd_create"):  # not on macOS
        return os.fdopen(os.memfd_create("photo"), "w+b", buffering=0)
    return io.BytesIO()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a channel: convert() would clip to white instead of scaling
        scaled = np.asarray(image) >> 8
        image = Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns that several transparent colours are lost
    return image if image.mode == "RGB" else image.convert("RGB")


def _too_many_pixels(what: str, limits: Limits) -> PhotoError:
    return PhotoError(Reason.TOO_MANY_PIXELS, f"{what} over the limit of {limits.max_pixels:,} pixels")


def _undecodable(error: Exception) -> PhotoError:
    text = str(error)
    if "truncated" in text or "unexpected end" in text.lower():
        return PhotoError(Reason.TRUNCATED, f"the file ends early ({text}); upload the photo again")
    return PhotoError(Reason.CORRUPT, f"the image data is damaged ({text}); take or upload the photo again")


# First bytes of the formats that are decoded, and of images that are not (for a reason that helps).
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"BM": "BMP", b"GIF8": "GIF"}
_OTHER = {
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"8BPS": "PSD",
    b"\x00\x00\x01\x00": "ICO",
    b"%PDF": "PDF",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
}


def _unidentified(data: bytes) -> PhotoError:
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return PhotoError(Reason.CORRUPT, f"it starts like a {name} but its header is damaged or cut off")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return PhotoError(Reason.CORRUPT, "it starts like a WEBP but its header is damaged or cut off")
    for magic, name in _OTHER.items():
        if data.startswith(magic):
            return PhotoError(Reason.UNSUPPORTED_FORMAT, f"{name} files are not counted; send {', '.join(FORMATS)}")
    if data[4:8] == b"ftyp":
        return PhotoError(Reason.UNSUPPORTED_FORMAT, f"HEIF, AVIF or video; send {', '.join(FORMATS)}")
    return PhotoError(Reason.NOT_AN_IMAGE, f"its first bytes, {data[:8]!r}, are not those of an image")
