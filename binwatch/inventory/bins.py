"""Matches bins in an inventory file with the bins that have photos."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from binwatch.keys import PHOTO_SUFFIXES, bin_of_key, normalise_bin_id

_ZERO_DECIMALS = re.compile(r"(\d+)\.0+")


class AmbiguousBin(Exception):
    """A name matches more than one bin."""


class BinIndex:
    """The ids of the bins that have a photo, which may be matched without leading zeros."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._ids = frozenset(ids)
        self._by_number: dict[str, list[str]] = {}
        for name in self._ids:
            self._by_number.setdefault(_as_number(name), []).append(name)

    def __len__(self) -> int:
        return len(self._ids)

    def match(self, name: str) -> str | None:
        """Return the bin with the id `name`, else the only one with the same id apart from leading zeros, else None.

        Raises AmbiguousBin if several ids are the same apart from leading zeros.
        """
        if name in self._ids:
            return name
        candidates = self._by_number.get(_as_number(name), [])
        if len(candidates) > 1:
            raise AmbiguousBin
        return candidates[0] if candidates else None


def bin_in_cell(text: str) -> str:
    """Return the bin's id in a cell, which may contain the path of a photo instead."""
    name = normalise_bin_id(text).replace("\\", "/")
    return bin_of_key(name) if PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES else normalise_bin_id(text)


def _as_number(name: str) -> str:
    """Return the name without leading zeros and ".0": a column of numbers has "184" or "184.0" for "00184"."""
    match = _ZERO_DECIMALS.fullmatch(name)
    return (match[1] if match else name).lstrip("0") or "0"
