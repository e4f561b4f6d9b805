"""What is written of a check, whatever the format: sheets of rows, a summary, and small pictures of the oddest bins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

from binwatch.counts import class_of
from binwatch.documents import SIDE, Cell, PhotoLink, Sheet
from binwatch.errors import PhotoError
from binwatch.image import ImageLimits, Photo
from binwatch.inventory.reading import InventoryQuantity
from binwatch.metadata import articles_in_words
from binwatch.text import visible
from binwatch.thumbnails import shrink, shrink_decoded
from worker.check.findings import Finding, Findings
from worker.check.folder import PhotoFile, ScannedFolder
from worker.check.layout import BINS, FAILED, UNEXPECTED, WITHOUT_PHOTO, columns
from worker.photo_inputs import file_source

PICTURES = 200
"""Bins that get a picture: more than anybody looks for in a day, and about a megabyte in the file."""
_KEPT = 5_000
"""Pictures that are kept until it is known which bins are the first: 5 kB each."""


def sheets(findings: Findings, folder: ScannedFolder, kept: Sequence[str] = ()) -> list[Sheet]:
    """The list of bins, and what is not in it. `kept` are the columns of the inventory file that it repeats."""
    paths = {photo.key: photo.path for photo in folder.photos}
    return [
        Sheet(
            "Bins",
            BINS,
            columns(kept),
            [_bin(finding) for finding in findings.compared],
        ),
        Sheet(
            "Failed",
            FAILED,
            ("photo", "bin", "reason", "detail", "what to do"),
            [
                (
                    _link(one.photo, paths.get(one.photo)),
                    visible(one.bin or ""),
                    one.reason.replace("_", " "),
                    one.detail,
                    one.do,
                )
                for one in findings.failed
            ],
        ),
        Sheet(
            "Photos without expectation",
            UNEXPECTED,
            ("photo", "bin", "counted", "probability"),
            [
                (
                    _link(photo.key, photo.path),
                    visible(photo.bin),
                    count.in_words,
                    count.confidence,
                )
                for photo, count in findings.unexpected
            ],
        ),
        Sheet(
            "Expectations without photo",
            WITHOUT_PHOTO,
            ("bin", *kept, "expected", "articles"),
            [
                (visible(one.bin), *one.kept, one.quantity, articles_in_words(one.contents or []))
                for one in findings.without_photo
            ],
        ),
    ]


class Pictures:
    """JPEGs of the first bins whose count differs, made of photos while they are decoded for the model, if they are."""

    def __init__(self, expected: Iterable[InventoryQuantity]) -> None:
        self._expected = {one.bin: class_of(one.quantity) for one in expected}
        self._kept: dict[Path, bytes] = {}

    def see(self, photo: PhotoFile, decoded: Photo, predicted: int) -> None:
        """Keep a picture of a photo that may be among the first."""
        differs = self._expected.get(photo.bin, predicted) != predicted
        if differs and len(self._kept) < _KEPT:
            self._kept[photo.path] = shrink_decoded(decoded, SIDE)

    def of(self, findings: Findings, limits: ImageLimits, pool: Executor) -> dict[Path, bytes]:
        """By file; without those of files that cannot be read any more."""
        photos = [finding.photo for finding in findings.compared[: min(PICTURES, findings.wrong)]]
        made = pool.map(lambda photo: self._kept.get(photo.path) or _picture(photo, limits), photos)
        return {photo.path: jpeg for photo, jpeg in zip(photos, made, strict=True) if jpeg is not None}


def _bin(finding: Finding) -> tuple[Cell, ...]:
    return (
        finding.verdict,
        visible(finding.photo.bin),
        *finding.kept,
        _link(finding.photo.key, finding.photo.path),
        finding.expected,
        finding.count,
        finding.difference,
        finding.words,
        finding.judged.either,
        finding.judged.missing,
        finding.judged.surplus,
        *finding.probabilities,
        articles_in_words(finding.articles),
    )


def _link(key: str, path: Path | None) -> Cell:
    return PhotoLink(visible(key), path) if path else visible(key)


def _picture(photo: PhotoFile, limits: ImageLimits) -> bytes | None:
    try:
        return shrink(file_source(photo.path, limits.max_bytes).read(), limits, SIDE)
    except PhotoError:
        return None  # it was there when it was counted; the link says where
