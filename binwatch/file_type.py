"""Recognises photos by the first bytes of a file."""

from __future__ import annotations

SIGNATURE_LENGTH = 32
"""Number of leading bytes that `is_photo` needs."""

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
"""Possible sizes of a BMP's second header, in bytes."""
_FTYP_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis"})
"""Brands of HEIF and AVIF, as opposed to videos."""


def is_photo(start: bytes) -> bool:
    """Return whether a file that starts with these bytes is a photo, including formats that are not decoded."""
    if start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return True
    if start[:2] == b"BM":  # a text may also start with BM
        return int.from_bytes(start[14:18], "little") in _BMP_HEADER_SIZES
    return start[4:8] == b"ftyp" and start[8:12] in _FTYP_BRANDS
