"""Compares counts with expected quantities: which bins to look at, in which order, and what could not be compared."""

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
from worker.check.records import Counted
from worker.skipped import SKIP_REASONS

_DO_WITH_SKIPPED = {
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
    judged: Judgement
    suspicion: Suspicion
    """The direction that bins are flagged for."""
    level: float
    articles: Sequence[Article] = ()
    kept: Sequence[str] = ()
    """Texts copied from the inventory file's columns."""
    finer: LargeCount | None = None

    @property
    def count(self) -> str:
        """The count in words."""
        return describe_count(self.predicted, self.finer)

    @property
    def difference(self) -> int:
        """Counted − expected in items; for an open-ended count, the lower bound."""
        return item_difference(self.predicted, self.expected, self.finer)

    @property
    def suspect(self) -> bool:
        """Whether the count differs in the direction that bins are flagged for."""
        return is_suspect(self.difference, self.suspicion)

    @property
    def p_value(self) -> float | None:
        """The p-value of the direction that bins are flagged for."""
        return self.judged.p_value(self.suspicion)

    @property
    def flagged(self) -> bool:
        """Whether the count differs in that direction and the p-value is at most the flag level."""
        return self.suspect and self.p_value is not None and self.p_value <= self.level

    @property
    def verdict(self) -> str:
        """The first column of the list: look first, differs or agrees."""
        if self.difference == 0:
            return "agrees"
        return "look first" if self.flagged else "differs"

    @property
    def words(self) -> str:
        """The difference in words."""
        return describe_difference(self.predicted, self.expected, self.finer)


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that was not counted."""

    photo: str
    bin: str | None
    reason: str
    detail: str
    do: str
    is_photo: bool = True
    """Whether its name or its content is a photo's."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of a check. Every photo of the folder is in exactly one of the first three lists."""

    compared: list[Finding]
    """First the photos that differ in the flagged direction, the oddest first; then the others."""
    failed: list[Failure]
    unexpected: list[tuple[PhotoFile, Counted]]
    """Photos of bins that the inventory file does not have."""
    without_photo: list[InventoryQuantity]
    photos_of: Counter[str] = field(default_factory=Counter)
    """Number of photos of each bin."""

    @property
    def failed_photos(self) -> int:
        """Number of photos in `failed`, which has other files, too."""
        return sum(failure.is_photo for failure in self.failed)

    @property
    def wrong(self) -> int:
        """Number of photos whose count differs."""
        return sum(finding.difference != 0 for finding in self.compared)

    @property
    def judged(self) -> int:
        """Number of photos with a p-value: those of bins whose quantity has a category in the calibration."""
        return sum(finding.p_value is not None for finding in self.compared)

    @property
    def flagged(self) -> int:
        """Number of flagged photos."""
        return sum(finding.flagged for finding in self.compared)


def find(
    folder: ScannedFolder,
    counts: Mapping[tuple[str, str], Counted],
    expected: Sequence[InventoryQuantity],
    values: PValueTable | None,
    level: float,
    suspicion: Suspicion = Suspicion.EITHER,
) -> Findings:
    """Compare each photo's count with the expected quantity of its bin."""
    by_bin = {one.bin: one for one in expected}
    found = Findings([], [], [], [one for one in expected if not one.has_photo])
    for photo in folder.photos:
        found.photos_of[photo.bin] += 1
        count = counts[photo.key, photo.etag]
        of_bin = by_bin.get(photo.bin)
        if count.predicted is None or count.probabilities is None:
            reason = Reason(count.reason or Reason.MISSING)
            found.failed.append(Failure(photo.key, photo.bin, reason, count.detail or "", REMEDIES.get(reason, "")))
        elif of_bin is None:
            found.unexpected.append((photo, count))
        else:
            articles = of_bin.contents or _articles(folder.metadata.get(photo.bin))
            judged = judge(count.probabilities, of_bin.quantity, values, count.distribution)
            finer = estimate_large_count(count.predicted, count.distribution)
            found.compared.append(
                Finding(
                    photo=photo,
                    expected=of_bin.quantity,
                    predicted=count.predicted,
                    probabilities=count.probabilities,
                    judged=judged,
                    suspicion=suspicion,
                    level=level,
                    articles=articles,
                    kept=of_bin.kept,
                    finer=finer,
                )
            )
    found.compared.sort(key=_rank)
    for key, why in folder.skipped:
        is_photo = kind_of(key) is ObjectKind.PHOTO
        do = _DO_WITH_SKIPPED.get(why, "")
        found.failed.append(Failure(key, None, "skipped", f"a file {SKIP_REASONS[why]}", do, is_photo))
    return found


def _rank(finding: Finding) -> tuple[bool, bool, float, float, str]:
    """Sort key: the order in which the monitor ranks bins."""
    chance = 1.0 if finding.judged.chance is None else finding.judged.chance
    doubt = doubt_of(finding.judged.chance, finding.p_value)
    return not finding.suspect, finding.difference == 0, doubt, chance, finding.photo.key


def _articles(metadata: Path | None) -> list[Article]:
    try:
        return (parse_articles(metadata.read_bytes()) if metadata else None) or []
    except OSError:
        return []  # not needed: articles only help a person to find the items
