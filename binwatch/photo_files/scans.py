"""A JPEG's frame and scans: whether they say that the picture is complete, before a single bit is decoded."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from binwatch.photo_files.parsed_image import header_damaged

_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_COEFFICIENTS = 64
_RUN = 32
"""Equal bytes in a row, from a multiple of as many on, that make a hole. One of 512 bytes has 15 such rows at least."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a frame header says."""

    progressive: bool
    width: int
    height: int
    components: dict[int, tuple[int, int]]
    """Their numbers and sampling factors, across and down."""

    @classmethod
    def read(cls, marker: int, body: bytes) -> Frame:
        """Of a segment without marker and length. Raises PhotoError."""
        try:
            _, height, width, count = struct.unpack_from(">BHHB", body)
            parts = [struct.unpack_from("BBB", body, 6 + 3 * number) for number in range(count)]
        except struct.error as error:
            raise header_damaged("JPEG") from error
        factors = {number: (factor >> 4, factor & 15) for number, factor, _ in parts}
        if not (width and height and factors and all(min(factor) > 0 for factor in factors.values())):
            raise header_damaged("JPEG")
        return cls(marker in _PROGRESSIVE, width, height, factors)

    @property
    def coefficients(self) -> int:
        """How many all components have together, filled up to whole blocks."""
        across = max(factor[0] for factor in self.components.values())
        down = max(factor[1] for factor in self.components.values())
        units = -(-self.width // (8 * across)) * -(-self.height // (8 * down))
        return units * sum(h * v for h, v in self.components.values()) * _COEFFICIENTS


@dataclass(frozen=True, slots=True)
class Scan:
    """Which coefficients of which components a scan brings, and to which bit: `low` is 0 for all of them."""

    components: dict[int, int]
    """Their numbers and the tables of their codes: DC's in the upper four bits, AC's in the lower."""
    first: int
    last: int
    low: int

    @classmethod
    def read(cls, frame: Frame, body: bytes) -> Scan:
        """Of a segment without marker and length. Raises PhotoError."""
        count = body[0] if body else 0
        if len(body) < 1 + 2 * count + 3:
            raise header_damaged("JPEG")
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        components = dict(zip(body[1 : 1 + 2 * count : 2], body[2 : 2 + 2 * count : 2], strict=True))
        return cls(components, first, last, bits & 15) if frame.progressive else cls(components, 0, 63, 0)


class Codes:
    """Of all Huffman tables seen so far, the code of symbol 0: "no change" for DC, "end of block" for AC."""

    def __init__(self) -> None:
        self._codes: dict[int, str] = {}

    def read(self, body: bytes) -> None:
        """Take in a DHT segment without marker and length. What is damaged, the decoder will find."""
        while len(body) > 16:  # one byte of class and number, 16 of how many codes have each length, then the symbols
            lengths = [length for length, count in enumerate(body[1:17], 1) for _ in range(count)]
            number, symbols, body = body[0], body[17 : 17 + len(lengths)], body[17 + len(lengths) :]
            if 0 in symbols:
                self._codes[number] = _canonical(lengths, symbols.index(0))

    def flat(self, frame: Frame, scan: Scan) -> str | None:
        """The bits of one unit of a picture without any detail; None if a table has no code for it."""
        bits = ""
        for component, tables in scan.components.items():
            dc, ac = self._codes.get(tables >> 4), self._codes.get(0x10 | tables & 15)
            if dc is None or ac is None:
                return None
            across, down = frame.components.get(component, (1, 1))
            bits += (dc + ac) * (across * down if len(scan.components) > 1 else 1)
        return bits


def _canonical(lengths: Sequence[int], place: int) -> str:
    """The code at `place`: codes count up, and grow by zeros (ITU-T T.81, annex C)."""
    code = 0
    for before, length in pairwise(lengths[: place + 1]):
        code = (code + 1) << (length - before)
    return f"{code:0{lengths[place]}b}"


def missing(frame: Frame, scans: Sequence[Scan]) -> str | None:
    """What no scan brings, in words. A progressive photo that lost its last scans looks whole, only blurred."""
    bits = {component: [_COEFFICIENTS] * _COEFFICIENTS for component in frame.components}
    for scan in scans:
        for component in scan.components:
            if component in bits:
                bits[component][scan.first : scan.last + 1] = [scan.low] * (scan.last + 1 - scan.first)
    if any(low for lows in bits.values() for low in lows):
        return "no scan brings the rest of it" if frame.progressive else "a colour has no scan"
    return None


def constant_run(scan: bytes, flat: str | None) -> bool:
    """Whether many bytes in a row are the same, as in a hole that a file system filled: a lost sector or page.

    Detail never codes so. A flat area may, if the bits of its units, `flat`, repeat with the bytes.
    """
    if flat is None or (flat * 8)[8:] == (flat * 8)[:-8]:
        return False
    rows = np.frombuffer(scan[: len(scan) // _RUN * _RUN], np.uint8).reshape(-1, _RUN)
    return bool((rows == rows[:, :1]).all(axis=1).any())
