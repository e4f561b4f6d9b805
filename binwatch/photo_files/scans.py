"""Parses the frame and scans of a JPEG, and detects an incomplete picture before decoding."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from binwatch.photo_files.parsed_image import header_error

_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_COEFFICIENTS = 64
_RUN_BYTES = 32
"""Length of an aligned run of equal bytes that counts as a hole. A hole of 512 bytes has at least 15 such runs."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame header."""

    progressive: bool
    width: int
    height: int
    components: dict[int, tuple[int, int]]
    """Component number → horizontal and vertical sampling factor."""

    @classmethod
    def read(cls, marker: int, body: bytes) -> Frame:
        """Parse a segment without marker and length. Raises PhotoError."""
        try:
            _, height, width, count = struct.unpack_from(">BHHB", body)
            components = [struct.unpack_from("BBB", body, 6 + 3 * index) for index in range(count)]
        except struct.error as error:
            raise header_error("JPEG") from error
        factors = {number: (factor >> 4, factor & 15) for number, factor, _ in components}
        if not (width and height and factors and all(min(factor) > 0 for factor in factors.values())):
            raise header_error("JPEG")
        return cls(marker in _PROGRESSIVE, width, height, factors)

    @property
    def coefficients(self) -> int:
        """Number of DCT coefficients of all components, padded to whole blocks."""
        across = max(factor[0] for factor in self.components.values())
        down = max(factor[1] for factor in self.components.values())
        units = -(-self.width // (8 * across)) * -(-self.height // (8 * down))
        return units * sum(h * v for h, v in self.components.values()) * _COEFFICIENTS


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan header: which coefficients of which components the scan contains."""

    components: dict[int, int]
    """Component number → Huffman tables: DC in the upper four bits, AC in the lower four."""
    first: int
    """Index of the first coefficient, 0 to 63."""
    last: int
    """Index of the last coefficient, 0 to 63."""
    low: int
    """Lowest bit of the coefficients in this scan; 0 if it completes them."""

    @classmethod
    def read(cls, frame: Frame, body: bytes) -> Scan:
        """Parse a segment without marker and length. Raises PhotoError."""
        count = body[0] if body else 0
        if len(body) < 1 + 2 * count + 3:
            raise header_error("JPEG")
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        components = dict(zip(body[1 : 1 + 2 * count : 2], body[2 : 2 + 2 * count : 2], strict=True))
        return cls(components, first, last, bits & 15) if frame.progressive else cls(components, 0, 63, 0)


class ZeroCodes:
    """The code of symbol 0 in each Huffman table read so far: "no change" for DC, "end of block" for AC."""

    def __init__(self) -> None:
        self._codes: dict[int, str] = {}

    def read(self, body: bytes) -> None:
        """Parse a DHT segment without marker and length. Damage is left to the decoder to detect."""
        while len(body) > 16:  # class and number, 16 numbers of codes by length, then the symbols
            lengths = [length for length, count in enumerate(body[1:17], 1) for _ in range(count)]
            table, symbols, body = body[0], body[17 : 17 + len(lengths)], body[17 + len(lengths) :]
            if 0 in symbols:
                self._codes[table] = _canonical_code(lengths, symbols.index(0))

    def flat_unit(self, frame: Frame, scan: Scan) -> str | None:
        """Return the bits of one unit of a completely flat picture; None if a table has no code for it."""
        bits = ""
        for component, tables in scan.components.items():
            dc, ac = self._codes.get(tables >> 4), self._codes.get(0x10 | tables & 15)
            if dc is None or ac is None:
                return None
            across, down = frame.components.get(component, (1, 1))
            bits += (dc + ac) * (across * down if len(scan.components) > 1 else 1)
        return bits


def _canonical_code(lengths: Sequence[int], index: int) -> str:
    """Return the code at `index` as bits: codes are consecutive, extended by zeros (ITU-T T.81, annex C)."""
    code = 0
    for previous, length in pairwise(lengths[: index + 1]):
        code = (code + 1) << (length - previous)
    return f"{code:0{lengths[index]}b}"


def missing_scans(frame: Frame, scans: Sequence[Scan]) -> str | None:
    """Return a text that says which scans are missing, or None if the picture is complete.

    A progressive photo without its last scans looks complete but blurred.
    """
    bits = {component: [_COEFFICIENTS] * _COEFFICIENTS for component in frame.components}
    for scan in scans:
        for component in scan.components:
            if component in bits:
                bits[component][scan.first : scan.last + 1] = [scan.low] * (scan.last + 1 - scan.first)
    if any(low for lows in bits.values() for low in lows):
        return "no scan brings the rest of it" if frame.progressive else "a colour has no scan"
    return None


def has_constant_run(scan: bytes, flat_unit: str | None) -> bool:
    """Return whether the scan has a long run of equal bytes: a lost sector or page that a file system has filled.

    Detail is never coded as equal bytes. A flat area may be, if the bits of its units (`flat_unit`) repeat with every
    byte. The result is then False, as it is without a `flat_unit`.
    """
    if flat_unit is None or (flat_unit * 8)[8:] == (flat_unit * 8)[:-8]:
        return False
    rows = np.frombuffer(scan[: len(scan) // _RUN_BYTES * _RUN_BYTES], np.uint8).reshape(-1, _RUN_BYTES)
    return bool((rows == rows[:, :1]).all(axis=1).any())
