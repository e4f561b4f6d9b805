"""Determines the bin of a photo or a metadata file: by a list, else by a pattern in its key, else by its file name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from binwatch.errors import BinwatchError, SettingsError
from binwatch.keys import bin_of_key, normalise_bin_id

BIN_GROUP = "bin"
"""Name of the pattern's group that matches the bin's id."""


@dataclass(frozen=True, slots=True)
class BinNaming:
    """Maps keys to bins."""

    pattern: re.Pattern[str] | None = None
    """Searched in the key; its group `bin` is the id. For a key without a match, the file name is the id."""
    listed: Mapping[str, str] = field(default_factory=dict)
    """Key, or name without folders → bin. Both are in Unicode form NFC."""

    def __call__(self, key: str) -> str:
        """Return the id of the bin that the object at `key` belongs to."""
        normalized = normalize("NFC", key)
        listed = self.listed.get(normalized) or self.listed.get(PurePosixPath(normalized).name)
        if listed:
            return listed
        match = self.pattern.search(key) if self.pattern else None
        return (match and normalise_bin_id(match[BIN_GROUP] or "")) or bin_of_key(key)


BY_FILE_NAME = BinNaming()
"""The default: the bin is the file's name without folders and suffixes."""


def make_bin_naming(pattern: str | None, file: Path | None) -> BinNaming:
    """Make a naming by a pattern, a list, both or neither. Raises SettingsError."""
    if not pattern and not file:
        return BY_FILE_NAME
    try:
        return BinNaming(compile_bin_pattern(pattern) if pattern else None, read_bin_list(file) if file else {})
    except ValueError as error:
        raise SettingsError(f"the bin pattern {pattern!r} {error}") from error


def compile_bin_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a bin pattern. Raises ValueError unless it is a regular expression with a group `bin`."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from error
    if BIN_GROUP not in compiled.groupindex:
        raise ValueError(
            f"has no group (?P<{BIN_GROUP}>…); the folder as the bin, for example, is (?P<bin>[^/]+)/[^/]+$"
        )
    return compiled


def read_bin_list(file: Path) -> dict[str, str]:
    """Read photo → bin from a table with the columns `photo` (a key or a file name) and `bin`. Raises SettingsError.

    The formats are those of inventory files: XLSX, XLS, ODS, CSV with any usual delimiter and encoding, or Parquet.
    """
    from binwatch.inventory.columns import ColumnNames
    from binwatch.inventory.tables import cell_text, open_table

    try:
        rows = list(open_table(file, ColumnNames(bin="bin", quantity="photo", has_options=False)).rows())
    except BinwatchError as error:
        raise SettingsError(f"{error}; the list needs a row for each photo: photo,bin") from error
    bins: dict[str, str] = {}
    for row in rows:
        photo, bin_id = normalize("NFC", cell_text(row.quantity).strip()), normalise_bin_id(row.bin)
        if not photo or not bin_id:
            raise SettingsError(f"{file}, row {row.row}: photo or bin is empty")
        if bins.setdefault(photo, bin_id) != bin_id:
            raise SettingsError(f"{file}, row {row.row}: {photo} is listed for two bins, {bins[photo]} and {bin_id}")
    return bins
