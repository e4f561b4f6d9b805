"""Matches bins in an inventory file with the bins that have photos."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from binwatch.keys import PHOTO_SUFFIXES, bin_of_key, normalize_bin_id

_WHOLE = re.compile(r"(\d+)\.0+")


class SeveralBins(Exception):
    """A name matches more than one bin."""


class BinIndex:
    """Ids of bins that have a photo."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._ids = frozenset(ids)
        self._bare: dict[str, list[str]] = {}
        for name in self._ids:
            self._bare.setdefault(_bare(name), []).append(name)

    def __len__(self) -> int:
        return len(self._ids)

    def match(self, name: str) -> str | None:
        """The bin that matches `name`, if necessary without leading zeros. Raises SeveralBins if several do."""
        if name in self._ids:
            return name
        fitting = self._bare.get(_bare(name), [])
        if len(fitting) > 1:
            raise SeveralBins
        return fitting[0] if fitting else None


def id_in(text: str) -> str:
    """The bin's id in a cell, which may instead have the path of its photo."""
    name = normalize_bin_id(text).replace("\\", "/")
    return bin_of_key(name) if PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES else normalize_bin_id(text)


def _bare(name: str) -> str:
    """The name without leading zeros and ".0": a column of numbers has "184" or "184.0" for "00184"."""
    whole = _WHOLE.fullmatch(name)
    return (whole[1] if whole else name).lstrip("0") or "0"
