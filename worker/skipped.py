"""Count skipped objects and events by reason, with a few names of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from binwatch.keys import SkipReason
from binwatch.text import escape_unprintable

OBJECT_NOUNS = ("photo or metadata file", "photos and metadata files")
"""Noun for the objects that are not skipped, singular and plural."""
_MAX_NAMES = 3
"""Maximum number of names kept per reason; `python -m worker skipped` lists all."""
_MAX_NAME_CHARS = 100
SKIP_REASONS = {
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

    def add(self, items: Iterable[tuple[SkipReason, str]]) -> None:
        """Add pairs of reason and name."""
        for reason, name in items:
            self.counts[reason] += 1
            names = self._names.setdefault(reason, [])
            if len(names) < _MAX_NAMES and name not in names:
                names.append(name)

    def add_one(self, name: str, reason: SkipReason | None) -> None:
        """Add one name unless its `reason` is None."""
        if reason is not None:
            self.add([(reason, name)])

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        parts = []
        for reason, count in self.counts.items():
            names = [f"'{escape_unprintable(name[:_MAX_NAME_CHARS])}'" for name in self._names[reason]]
            ellipsis = ["…"] if count > len(names) else []
            parts.append(f"{count} {SKIP_REASONS[reason]} ({', '.join(names + ellipsis)})")
        return "; ".join(parts)
