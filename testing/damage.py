"""Damage that files suffer in transit: lost ends, holes, lost and duplicated pieces, flipped bits."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Damage = Callable[[bytes, Random], bytes]
_HEADER = 700
"""Bytes at the start of a JPEG that are left intact, because they are mostly tables rather than pixels."""
_SECTOR, _PAGE = 512, 4096


def _random_offset(data: bytes, random: Random, size: int) -> int:
    return random.randrange(_HEADER, len(data) - size - 2)


def _truncated(share: float) -> Damage:
    return lambda data, _: data[: _HEADER + int((len(data) - _HEADER) * share)] + b"\xff\xd9"


def _deleted(size: int) -> Damage:
    def delete(data: bytes, random: Random) -> bytes:
        offset = _random_offset(data, random, size)
        return data[:offset] + data[offset + size :]

    return delete


def _overwritten(size: int, fill: int) -> Damage:
    """Overwrite a range that starts at a multiple of the sector size, as file systems do with missing data."""

    def overwrite(data: bytes, random: Random) -> bytes:
        offset = _random_offset(data, random, size + _SECTOR) // _SECTOR * _SECTOR + _SECTOR
        return data[:offset] + bytes([fill]) * size + data[offset + size :]

    return overwrite


def _randomised(size: int) -> Damage:
    def replace(data: bytes, random: Random) -> bytes:
        offset = _random_offset(data, random, size)
        return data[:offset] + random.randbytes(size) + data[offset + size :]

    return replace


def _duplicated(size: int) -> Damage:
    def duplicate(data: bytes, random: Random) -> bytes:
        offset = _random_offset(data, random, size)
        return data[: offset + size] + data[offset:]

    return duplicate


def _zeroed_to_end(data: bytes, random: Random) -> bytes:
    offset = _random_offset(data, random, 0)
    return data[:offset] + bytes(len(data) - offset)


def _flipped_bit(data: bytes, random: Random) -> bytes:
    offset = _random_offset(data, random, 1)
    return data[:offset] + bytes([data[offset] ^ 1 << random.randrange(8)]) + data[offset + 1 :]


LARGE_DAMAGE: dict[str, Damage] = {
    "ends at a half": _truncated(0.5),
    "ends at 90 %": _truncated(0.9),
    "ends at 99 %": _truncated(0.99),
    "zeros to the end": _zeroed_to_end,
    "4 KiB lost": _deleted(_PAGE),
    "4 KiB of zeros": _overwritten(_PAGE, 0),
    "4 KiB of 0x55": _overwritten(_PAGE, 0x55),
    "4 KiB of other bytes": _randomised(_PAGE),
    "512 bytes lost": _deleted(_SECTOR),
    "512 zeros": _overwritten(_SECTOR, 0),
    "512 other bytes": _randomised(_SECTOR),
    "512 bytes doubled": _duplicated(_SECTOR),
}
"""Damage that certainly loses part of the photo."""
SMALL_DAMAGE: dict[str, Damage] = {
    "100 bytes lost": _deleted(100),
    "10 bytes lost": _deleted(10),
    "1 byte lost": _deleted(1),
    "16 other bytes": _randomised(16),
    "1 bit flipped": _flipped_bit,
}
"""Damage that may change only a few pixels, which no decoder can detect."""
