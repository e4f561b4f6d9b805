"""Decodes photos with Pillow."""

from __future__ import annotations

import io

from PIL import Image

from binwatch.errors import PhotoError
from binwatch.photo_files.parsed_image import damage_error, truncated_error


def open_image(data: bytes, name: str) -> Image.Image:
    """Open an image and parse its header. Raises PhotoError."""
    try:
        return Image.open(io.BytesIO(data), formats=(name,))
    except Exception as error:  # a damaged header may raise anything
        raise pillow_error(error) from error


def decode(data: bytes, name: str, side: int) -> Image.Image:
    """Decode the first picture of a file. Raises PhotoError. `side` is ignored: Pillow cannot scale these formats."""
    image = open_image(data, name)
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise pillow_error(error) from error
    return image


def pillow_error(error: Exception) -> PhotoError:
    """Convert an error of Pillow into a PhotoError."""
    text = str(error)
    if "truncated" in text or "unexpected end" in text.lower():
        return truncated_error(text)
    return damage_error(text)
