"""Decoding with Pillow."""

from __future__ import annotations

import io

from PIL import Image

from binwatch.errors import PhotoError
from binwatch.photo_files.parsed_image import cut_off, damaged


def opened(data: bytes, name: str) -> Image.Image:
    """Open an image and parse its header. Raises PhotoError."""
    try:
        return Image.open(io.BytesIO(data), formats=(name,))
    except Exception as error:  # a damaged header may raise anything
        raise undecodable(error) from error


def decode(data: bytes, name: str, side: int) -> Image.Image:
    """Decode the first picture of a file. Raises PhotoError. `side` is ignored: these formats cannot be scaled."""
    image = opened(data, name)
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise undecodable(error) from error
    return image


def undecodable(error: Exception) -> PhotoError:
    """The PhotoError for an error of Pillow."""
    text = str(error)
    if "truncated" in text or "unexpected end" in text.lower():
        return cut_off(text)
    return damaged(text)
