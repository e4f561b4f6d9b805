"""Compares counts with expected quantities, and ranks the bins that should be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from binwatch.conformal import Judgement, PValueTable, judge
from binwatch.counts import (
    LargeCount,
    Suspicion,
    describe_count,
    describe_difference,
    estimate_large_count,
    is_suspect,
    item_difference,
)
from binwatch.errors import REMEDIES, Reason
from binwatch.inventory.reading import InventoryQuantity
from binwatch.keys import ObjectKind, SkipReason, kind_of
from binwatch.metadata import Article, parse_articles
from binwatch.records.settlement import doubt_of
from worker.check.folder import PhotoFile, ScannedFolder
from worker.check.records import RecordedCount
from worker.skipped import SKIP_REASONS

_REMEDIES_FOR_SKIPPED = {
    SkipReason.NO_ENDING: "if it is a photo, save it as JPEG or PNG",
    SkipReason.OTHER_ENDING: "if it is a photo, save it as JPEG or PNG",
    SkipReason.NOT_UTF8: "rename the file, so that its name is valid UTF-8",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A counted photo, with the expected quantity of its bin."""

    photo: PhotoFile
    expected: int
    predicted: int
    probabilities: Sequence[float]
    judgement: Judgement
    flag_direction: Suspicion
    flag_level: float
    """Maximum p-value of a flagged photo."""
    articles: Sequence[Article] = ()
    kept: Sequence[str] = ()
    """Texts copied from the kept columns of the inventory file."""
    beyond: LargeCount | None = None
    """Estimate of a count above 5, if the model distinguishes such counts."""

    @property
    def count_text(self) -> str:
        """The count as text, such as "3" or "more than 5"."""
        return describe_count(self.predicted, self.beyond)

    @property
    def difference(self) -> int:
        """Counted − expected in items; for an open-ended count, the lower bound."""
        return item_difference(self.predicted, self.expected, self.beyond)

    @property
    def suspect(self) -> bool:
        """Whether the count differs in the flagged direction."""
        return is_suspect(self.difference, self.flag_direction)

    @property
    def p_value(self) -> float | None:
        """The p-value for the flagged direction."""
        return self.judgement.p_value(self.flag_direction)

    @property
    def flagged(self) -> bool:
        """Whether the count differs in the flagged direction, with a p-value of at most the flag level."""
        return self.suspect and self.p_value is not None and self.p_value <= self.flag_level

    @property
    def verdict(self) -> str:
        """The verdict in the first column of the list: look first, differs or agrees."""
        if self.difference == 0:
            return "agrees"
        return "look first" if self.flagged else "differs"

    @property
    def difference_text(self) -> str:
        """The difference as text, such as "4 fewer"."""
        return describe_difference(self.predicted, self.expected, self.beyond)


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that was not counted."""

    key: str
    bin: str | None
    reason: str
    detail: str
    remedy: str
    is_photo: bool = True
    """Whether the file is a photo by its name or content."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of a check. Each photo of the folder is in exactly one of the first three lists."""

    compared: list[Finding]
    """Photos that differ in the flagged direction, the oddest first, followed by the other compared photos."""
    failed: list[Failure]
    unexpected: list[tuple[PhotoFile, RecordedCount]]
    """Photos of bins that are not in the inventory file."""
    without_photo: list[InventoryQuantity]
    photos_per_bin: Counter[str] = field(default_factory=Counter)

    @property
    def failed_photo_count(self) -> int:
        """Number of photos in `failed`, which also lists other files."""
        return sum(failure.is_photo for failure in self.failed)

    @property
    def differing_count(self) -> int:
        """Number of photos whose count differs from the expected quantity."""
        return sum(finding.difference != 0 for finding in self.compared)

    @property
    def judged_count(self) -> int:
        """Number of photos with a p-value: those of bins whose quantity has a category in the calibration."""
        return sum(finding.p_value is not None for finding in self.compared)

    @property
    def flagged_count(self) -> int:
        """Number of flagged photos."""
        return sum(finding.flagged for finding in self.compared)


def compare_counts(
    folder: ScannedFolder,
    counts: Mapping[tuple[str, str], RecordedCount],
    expected: Sequence[InventoryQuantity],
    p_values: PValueTable | None,
    flag_level: float,
    flag_direction: Suspicion = Suspicion.EITHER,
) -> Findings:
    """Compare each photo's count with the expected quantity of its bin. `counts` maps key and ETag to a count."""
    expected_by_bin = {quantity.bin: quantity for quantity in expected}
    findings = Findings([], [], [], [quantity for quantity in expected if not quantity.has_photo])
    for photo in folder.photos:
        findings.photos_per_bin[photo.bin] += 1
        count = counts[photo.key, photo.etag]
        quantity = expected_by_bin.get(photo.bin)
        if count.predicted is None or count.probabilities is None:
            reason = Reason(count.reason or Reason.MISSING)
            findings.failed.append(Failure(photo.key, photo.bin, reason, count.detail or "", REMEDIES.get(reason, "")))
        elif quantity is None:
            findings.unexpected.append((photo, count))
        else:
            findings.compared.append(
                Finding(
                    photo=photo,
                    expected=quantity.quantity,
                    predicted=count.predicted,
                    probabilities=count.probabilities,
                    judgement=judge(count.probabilities, quantity.quantity, p_values, count.distribution),
                    flag_direction=flag_direction,
                    flag_level=flag_level,
                    articles=quantity.contents or _read_articles(folder.metadata.get(photo.bin)),
                    kept=quantity.kept,
                    beyond=estimate_large_count(count.predicted, count.distribution),
                )
            )
    findings.compared.sort(key=_sort_key)
    for key, skip_reason in folder.skipped:
        is_photo = kind_of(key) is ObjectKind.PHOTO
        remedy = _REMEDIES_FOR_SKIPPED.get(skip_reason, "")
        findings.failed.append(Failure(key, None, "skipped", f"a file {SKIP_REASONS[skip_reason]}", remedy, is_photo))
    return findings


def _sort_key(finding: Finding) -> tuple[bool, bool, float, float, str]:
    """Sort key that ranks bins as the monitor does."""
    chance = 1.0 if finding.judgement.chance is None else finding.judgement.chance
    doubt = doubt_of(finding.judgement.chance, finding.p_value)
    return not finding.suspect, finding.difference == 0, doubt, chance, finding.photo.key


def _read_articles(metadata: Path | None) -> list[Article]:
    try:
        return (parse_articles(metadata.read_bytes()) if metadata else None) or []
    except OSError:
        return []  # articles only help a person to find the items
