"""Slices: groups of photos by a part of their keys, such as the camera, aisle or site."""

from __future__ import annotations

import re
from dataclasses import dataclass

from binwatch.errors import SettingsError

OTHER_SLICE = "other"
"""Slice of photos whose keys do not match, whose value is too long, or whose value is beyond the first MAX_SLICES."""
MAX_SLICES = 200
"""Maximum number of slices per rule, since each slice is a value of a metric's label."""
MAX_SLICE_CHARS = 100
"""Maximum length of a slice's name. A longer value means that the rule matches too much."""


@dataclass(frozen=True, slots=True)
class Slicing:
    """Maps keys to slices. Two rules with the same expression have the same slices."""

    pattern: re.Pattern[str]
    """Searched in the key. Its only group is the name of the slice."""

    @property
    def rule(self) -> str:
        """Name of the rule in the records."""
        return self.pattern.pattern

    def __call__(self, key: str) -> str:
        """Return the slice of the photo at `key`; OTHER_SLICE if the group is empty or too long."""
        match = self.pattern.search(key)
        name = (match and match[1]) or OTHER_SLICE
        return name if len(name) <= MAX_SLICE_CHARS else OTHER_SLICE


def make_slicing(pattern: str | None, depth: int | None) -> Slicing | None:
    """Make a slicing by a regular expression, or by the first `depth` folders of the key; None without either.

    Raises SettingsError if both are given, and ValueError for an invalid pattern.
    """
    if pattern and depth:
        raise SettingsError(
            f"BINWATCH_SLICE_PATTERN is {pattern!r} and BINWATCH_SLICE_DEPTH is {depth}: a photo has one slice; set one"
        )
    if depth:
        return Slicing(re.compile(rf"^([^/]+(?:/[^/]+){{0,{depth - 1}}})/"))
    return Slicing(compile_slice_pattern(pattern)) if pattern else None


def compile_slice_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a slice pattern. Raises ValueError unless it is a regular expression with exactly one group."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from error
    if compiled.groups != 1:
        raise ValueError(
            f"has {compiled.groups} groups instead of one, which is the slice; write others as (?:…). The first folder,"
            " for example, is ^([^/]+)/"
        )
    return compiled
