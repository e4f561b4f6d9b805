"""The bin of a photo or a metadata file: by a list, else by a pattern in its key, else by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from binwatch.errors import BinwatchError, SettingsError
from binwatch.keys import bin_id, bin_of

GROUP = "bin"
"""Name of the pattern's group that matches the bin's id."""


@dataclass(frozen=True, slots=True)
class BinNaming:
    """Key → bin."""

    pattern: re.Pattern[str] | None = None
    """Searched in the key; its group `bin` matches the id. A key without a match is named by its file name."""
    listed: Mapping[str, str] = field(default_factory=dict)
    """Key, or name without folders, → bin. Both in Unicode form NFC."""

    def __call__(self, key: str) -> str:
        """Id of the bin that the object at `key` belongs to."""
        normal = normalize("NFC", key)
        listed = self.listed.get(normal) or self.listed.get(PurePosixPath(normal).name)
        if listed:
            return listed
        match = self.pattern.search(key) if self.pattern else None
        return (match and bin_id(match[GROUP] or "")) or bin_of(key)


BY_NAME = BinNaming()
"""The default: the file's name without folders and endings."""


def naming(pattern: str | None, file: Path | None) -> BinNaming:
    """A naming by a pattern, a list, both or neither. Raises SettingsError."""
    if not pattern and not file:
        return BY_NAME
    try:
        return BinNaming(compiled(pattern) if pattern else None, read_list(file) if file else {})
    except ValueError as error:
        raise SettingsError(f"the bin pattern {pattern!r} {error}") from error


def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a bin pattern. Raises ValueError if it is not a regular expression, or has no group `bin`."""
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from error
    if GROUP not in found.groupindex:
        raise ValueError(f"has no group (?P<{GROUP}>…); the folder as the bin, for example, is (?P<bin>[^/]+)/[^/]+$")
    return found


def read_list(file: Path) -> dict[str, str]:
    """Photo → bin, from a table with the columns `photo` (a key or a name) and `bin`. Raises SettingsError.

    The formats are those of inventory files: XLSX, XLS, ODS, CSV with any usual delimiter and encoding, or Parquet.
    """
    from binwatch.inventory.columns import ColumnNames
    from binwatch.inventory.tables import cell_text, open_table

    try:
        rows = list(open_table(file, ColumnNames(bin="bin", quantity="photo", has_options=False)).rows())
    except BinwatchError as error:
        raise SettingsError(f"{error}; the list needs a row for each photo: photo,bin") from error
    found: dict[str, str] = {}
    for row in rows:
        photo, name = normalize("NFC", cell_text(row.quantity).strip()), bin_id(row.bin)
        if not photo or not name:
            raise SettingsError(f"{file}, row {row.row}: photo or bin is empty")
        if found.setdefault(photo, name) != name:
            raise SettingsError(f"{file}, row {row.row}: {photo} is listed for two bins, {found[photo]} and {name}")
    return found
