"""Slices: the part of a photo's key, such as its camera, aisle or site, by which figures are also given."""

from __future__ import annotations

import re
from dataclasses import dataclass

from binwatch.errors import SettingsError

OTHER = "other"
"""Slice of the photos whose key has none, and of all values beyond the first MOST."""
MOST = 200
"""Values of one rule that become slices: each is a value of a metric's label."""
LONGEST = 100
"""Characters of a slice's name. A longer value is no name of a camera, but a rule that matches too much."""


@dataclass(frozen=True, slots=True)
class Slicing:
    """Key → slice. Two rules with the same expression have the same slices."""

    pattern: re.Pattern[str]
    """Searched for in the key; what its only group matches is the slice."""

    @property
    def rule(self) -> str:
        """What slices are recorded under."""
        return self.pattern.pattern

    def __call__(self, key: str) -> str:
        """Slice of the photo at `key`; OTHER if the group matches nothing, or too much."""
        match = self.pattern.search(key)
        name = (match and match[1]) or OTHER
        return name if len(name) <= LONGEST else OTHER


def slicing(pattern: str | None, depth: int | None) -> Slicing | None:
    """By an expression or by the first `depth` folders of the key; None without either.

    Raises SettingsError for both, and ValueError as `compiled` does.
    """
    if pattern and depth:
        raise SettingsError(
            f"BINWATCH_SLICE_PATTERN is {pattern!r} and BINWATCH_SLICE_DEPTH is {depth}: a photo has one slice; set one"
        )
    if depth:
        return Slicing(re.compile(rf"^([^/]+(?:/[^/]+){{0,{depth - 1}}})/"))
    return Slicing(compiled(pattern)) if pattern else None


def compiled(pattern: str) -> re.Pattern[str]:
    """Raises ValueError if it is no regular expression, or does not have exactly one group."""
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from error
    if found.groups != 1:
        raise ValueError(
            f"has {found.groups} groups instead of one, which is the slice; write others as (?:…). The first folder,"
            " for example, is ^([^/]+)/"
        )
    return found
