"""Which bin a photo or a metadata file is of: what a list says, else what a pattern finds in its key, else its name."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from binwatch.errors import SettingsError
from binwatch.keys import bin_id, bin_of
from binwatch.spreadsheets import original

GROUP = "bin"
"""The group of the pattern that is the bin's id."""
_COLUMNS = ("photo", "bin")


@dataclass(frozen=True, slots=True)
class BinNaming:
    """Key → bin."""

    pattern: re.Pattern[str] | None = None
    """Searched for in the key; what its group `bin` matches is the id. A key without a match goes by its name."""
    listed: Mapping[str, str] = field(default_factory=dict)
    """Key, or name without folders, → bin. Both in Unicode's NFC."""

    def __call__(self, key: str) -> str:
        """Id of the bin that the object at `key` is about."""
        normal = normalize("NFC", key)
        listed = self.listed.get(normal) or self.listed.get(PurePosixPath(normal).name)
        if listed:
            return listed
        match = self.pattern.search(key) if self.pattern else None
        return (match and bin_id(match[GROUP] or "")) or bin_of(key)


BY_NAME = BinNaming()
"""The default: the file's name without folders and endings."""


def naming(pattern: str | None, file: Path | None) -> BinNaming:
    """By a pattern and a list, either of which may be none. Raises SettingsError."""
    try:
        return BinNaming(compiled(pattern) if pattern else None, read_list(file) if file else {})
    except ValueError as error:
        raise SettingsError(f"the bin pattern {pattern!r} {error}") from error


def compiled(pattern: str) -> re.Pattern[str]:
    """Raises ValueError if it is no regular expression, or has no group `bin`."""
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from error
    if GROUP not in found.groupindex:
        raise ValueError(f"has no group (?P<{GROUP}>…); the folder as the bin, for example, is (?P<bin>[^/]+)/[^/]+$")
    return found


def read_list(file: Path) -> dict[str, str]:
    """Photo → bin, from a CSV with the columns `photo` (a key, or a name) and `bin`. Raises SettingsError."""
    found: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, strict=True)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise SettingsError(f"{file}: no column {missing[0]!r}; it takes a row for each photo: photo,bin")
            for row in reader:
                photo, name = (original(row[column] or "").strip() for column in _COLUMNS)
                if not photo or not bin_id(name):
                    raise SettingsError(f"{file}, line {reader.line_num}: photo or bin is empty")
                photo, name = normalize("NFC", photo), bin_id(name)
                if found.setdefault(photo, name) != name:
                    raise SettingsError(f"{file}, line {reader.line_num}: {photo} is of {found[photo]} and of {name}")
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: is not a CSV in UTF-8 ({error})") from error
    return found
