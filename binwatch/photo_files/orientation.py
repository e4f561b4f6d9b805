"""Reads the orientation of a photo from EXIF and XMP. An invalid value counts as upright."""

from __future__ import annotations

import re
import struct

_TAG = 0x0112  # EXIF 2.32, section 4.6.4
_SHORT, _LONG = 3, 4
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
UPRIGHT = 1


def orientation(exif: bytes = b"", xmp: bytes = b"") -> int:
    """Return EXIF's orientation number, 1 to 8. XMP is used only if EXIF has none."""
    value = _exif_orientation(exif.removeprefix(b"Exif\0\0"))
    if value is None and (match := _XMP.search(xmp)):
        value = int(match[1])
    return value if value is not None and 1 <= value <= 8 else UPRIGHT


def _exif_orientation(exif: bytes) -> int | None:
    """Return the orientation tag of the first directory.

    Pillow is not used, since it keeps every tag and warns about each damaged one, and a photo may have thousands.
    """
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    entries = exif[start + 2 : start + 2 + 12 * count]
    number = None
    for tag, kind, length, value in struct.iter_unpack(f"{order}HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == _TAG and kind in (_SHORT, _LONG) and length == 1:
            number = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), value)[0]
    return number
