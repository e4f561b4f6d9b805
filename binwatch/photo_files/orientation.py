"""The orientation of a photo, from EXIF and XMP. An invalid value counts as upright."""

from __future__ import annotations

import re
import struct

_TAG = 0x0112  # EXIF 2.32, section 4.6.4
_SHORT, _LONG = 3, 4
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
UPRIGHT = 1


def orientation(exif: bytes = b"", xmp: bytes = b"") -> int:
    """EXIF's orientation number, 1 to 8. XMP is used only if EXIF has none."""
    found = _of_exif(exif.removeprefix(b"Exif\0\0"))
    if found is None and (match := _XMP.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else UPRIGHT


def _of_exif(exif: bytes) -> int | None:
    """The orientation tag in the first directory.

    Not with Pillow, which keeps every tag, and warns of each damaged one, of which a photo may have thousands.
    """
    order = _ORDERS.get(exif[:4])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    entries = exif[start + 2 : start + 2 + 12 * count]
    found = None
    for tag, kind, values, value in struct.iter_unpack(f"{order}HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == _TAG and kind in (_SHORT, _LONG) and values == 1:
            found = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), value)[0]
    return found
