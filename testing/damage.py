"""What happens to files on their way: ends that are lost, holes, lost and doubled pieces, flipped bits."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Damage = Callable[[bytes, Random], bytes]
_HEADER = 700
"""Bytes of a small JPEG that are tables rather than pixels, which are left intact."""
_SECTOR, _PAGE = 512, 4096


def _place(data: bytes, random: Random, size: int) -> int:
    return random.randrange(_HEADER, len(data) - size - 2)


def _early_end(share: float) -> Damage:
    return lambda data, _: data[: _HEADER + int((len(data) - _HEADER) * share)] + b"\xff\xd9"


def _lost(size: int) -> Damage:
    def lose(data: bytes, random: Random) -> bytes:
        at = _place(data, random, size)
        return data[:at] + data[at + size :]

    return lose


def _hole(size: int, fill: int) -> Damage:
    """As a file system fills what it never got: at a multiple of a sector."""

    def empty(data: bytes, random: Random) -> bytes:
        at = _place(data, random, size + _SECTOR) // _SECTOR * _SECTOR + _SECTOR
        return data[:at] + bytes([fill]) * size + data[at + size :]

    return empty


def _other(size: int) -> Damage:
    def replace(data: bytes, random: Random) -> bytes:
        at = _place(data, random, size)
        return data[:at] + random.randbytes(size) + data[at + size :]

    return replace


def _doubled(size: int) -> Damage:
    def double(data: bytes, random: Random) -> bytes:
        at = _place(data, random, size)
        return data[: at + size] + data[at:]

    return double


def _empty_end(data: bytes, random: Random) -> bytes:
    at = _place(data, random, 0)
    return data[:at] + bytes(len(data) - at)


def _flip(data: bytes, random: Random) -> bytes:
    at = _place(data, random, 1)
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


LARGE: dict[str, Damage] = {
    "ends at a half": _early_end(0.5),
    "ends at 90 %": _early_end(0.9),
    "ends at 99 %": _early_end(0.99),
    "zeros to the end": _empty_end,
    "4 KiB lost": _lost(_PAGE),
    "4 KiB of zeros": _hole(_PAGE, 0),
    "4 KiB of 0x55": _hole(_PAGE, 0x55),
    "4 KiB of other bytes": _other(_PAGE),
    "512 bytes lost": _lost(_SECTOR),
    "512 zeros": _hole(_SECTOR, 0),
    "512 other bytes": _other(_SECTOR),
    "512 bytes doubled": _doubled(_SECTOR),
}
"""A part of the photo is gone for certain."""
SMALL: dict[str, Damage] = {
    "100 bytes lost": _lost(100),
    "10 bytes lost": _lost(10),
    "1 byte lost": _lost(1),
    "16 other bytes": _other(16),
    "1 bit flipped": _flip,
}
"""Maybe only a few pixels differ, which no decoder can detect."""
