"""Skipped objects and events: the number for each reason, with a few names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from binwatch.keys import SkipReason
from binwatch.text import escape_unprintable

OBJECTS = ("photo or metadata file", "photos and metadata files")
"""Words for the objects that are not skipped, singular and plural."""
_NAMED = 3
"""Names that are kept for each reason; `python -m worker skipped` lists them all."""
_NAME_LENGTH = 100
WORDS = {
    SkipReason.NO_ENDING: "without a suffix",
    SkipReason.OTHER_ENDING: "with a suffix of neither photos nor metadata",
    SkipReason.DOT_SEGMENTS: "with '.' or '..' as a path segment of the key",
    SkipReason.NOT_UTF8: "with a name that is not UTF-8",
    SkipReason.OTHER_EVENT: "that announce no new object",
}


@dataclass(slots=True)
class SkippedTally:
    """Counts of skipped objects and events."""

    counts: Counter[SkipReason] = field(default_factory=Counter)
    _names: dict[SkipReason, list[str]] = field(default_factory=dict)

    def add(self, found: Iterable[tuple[SkipReason, str]]) -> None:
        """Add reasons and names."""
        for reason, name in found:
            self.counts[reason] += 1
            names = self._names.setdefault(reason, [])
            if len(names) < _NAMED and name not in names:
                names.append(name)

    def add_name(self, name: str, reason: SkipReason | None) -> None:
        """Add one name, if there is a reason."""
        if reason is not None:
            self.add([(reason, name)])

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        parts = []
        for reason, number in self.counts.items():
            names = [f"'{escape_unprintable(name[:_NAME_LENGTH])}'" for name in self._names[reason]]
            parts.append(f"{number} {WORDS[reason]} ({', '.join([*names, '…'] if number > len(names) else names)})")
        return "; ".join(parts)
