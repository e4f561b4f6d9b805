"""The sheets and pictures of the document that a check writes in any format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

from binwatch.counts import class_of
from binwatch.documents import PICTURE_SIDE, Cell, PhotoLink, Sheet
from binwatch.errors import PhotoError
from binwatch.image import ImageLimits, Photo
from binwatch.inventory.reading import InventoryQuantity
from binwatch.metadata import describe_articles
from binwatch.text import escape_unprintable
from binwatch.thumbnails import make_thumbnail, thumbnail_of_photo
from worker.check.findings import Finding, Findings
from worker.check.folder import PhotoFile, ScannedFolder
from worker.check.layout import BINS, FAILED, UNEXPECTED, WITHOUT_PHOTO, bin_sheet_columns
from worker.photo_inputs import file_source

MAX_PICTURES = 200
"""Maximum number of bins with a picture: more than a person checks in a day, and about 1 MB of the file."""
_MAX_CANDIDATES = 5_000
"""Maximum number of pictures held in memory until the bins are ranked, 5 kB each."""


def sheets(findings: Findings, folder: ScannedFolder, kept: Sequence[str] = ()) -> list[Sheet]:
    """Return the sheet of bins, and sheets of the photos, files and quantities that could not be compared.

    `kept` names the columns copied from the inventory file.
    """
    paths = {photo.key: photo.path for photo in folder.photos}
    return [
        Sheet("Bins", BINS, bin_sheet_columns(kept), [_bin_row(finding) for finding in findings.compared]),
        Sheet(
            "Failed",
            FAILED,
            ("photo", "bin", "reason", "detail", "what to do"),
            [
                (
                    _link(failure.key, paths.get(failure.key)),
                    escape_unprintable(failure.bin or ""),
                    failure.reason.replace("_", " "),
                    failure.detail,
                    failure.remedy,
                )
                for failure in findings.failed
            ],
        ),
        Sheet(
            "Photos without expectation",
            UNEXPECTED,
            ("photo", "bin", "counted", "probability"),
            [
                (_link(photo.key, photo.path), escape_unprintable(photo.bin), count.text, count.confidence)
                for photo, count in findings.unexpected
            ],
        ),
        Sheet(
            "Expectations without photo",
            WITHOUT_PHOTO,
            ("bin", *kept, "expected", "articles"),
            [
                (escape_unprintable(bin_.bin), *bin_.kept, bin_.quantity, describe_articles(bin_.contents or []))
                for bin_ in findings.without_photo
            ],
        ),
    ]


class Pictures:
    """Small JPEGs of the oddest bins. Photos counted in this run are shrunk when decoded; others are read again."""

    def __init__(self, expected: Iterable[InventoryQuantity]) -> None:
        self._expected_classes = {quantity.bin: class_of(quantity.quantity) for quantity in expected}
        self._candidates: dict[Path, bytes] = {}

    def add_candidate(self, photo: PhotoFile, decoded: Photo, predicted: int) -> None:
        """Store a picture of a decoded photo if its count differs, since its bin may be among the oddest."""
        differs = self._expected_classes.get(photo.bin, predicted) != predicted
        if differs and len(self._candidates) < _MAX_CANDIDATES:
            self._candidates[photo.path] = thumbnail_of_photo(decoded, PICTURE_SIDE)

    def of_oddest(self, findings: Findings, limits: ImageLimits, pool: Executor) -> dict[Path, bytes]:
        """Return the pictures of the oddest bins by file, except files that can no longer be read."""
        photos = [finding.photo for finding in findings.compared[: min(MAX_PICTURES, findings.differing_count)]]
        jpegs = pool.map(lambda photo: self._candidates.get(photo.path) or _picture(photo, limits), photos)
        return {photo.path: jpeg for photo, jpeg in zip(photos, jpegs, strict=True) if jpeg is not None}


def _bin_row(finding: Finding) -> tuple[Cell, ...]:
    return (
        finding.verdict,
        escape_unprintable(finding.photo.bin),
        *finding.kept,
        _link(finding.photo.key, finding.photo.path),
        finding.expected,
        finding.count_text,
        finding.difference,
        finding.difference_text,
        finding.judgement.either,
        finding.judgement.missing,
        finding.judgement.surplus,
        *finding.probabilities,
        describe_articles(finding.articles),
    )


def _link(key: str, path: Path | None) -> Cell:
    return PhotoLink(escape_unprintable(key), path) if path else escape_unprintable(key)


def _picture(photo: PhotoFile, limits: ImageLimits) -> bytes | None:
    try:
        return make_thumbnail(file_source(photo.path, limits.max_bytes).read(), limits, PICTURE_SIDE)
    except PhotoError:
        return None  # deleted since it was counted; the row still has the link
