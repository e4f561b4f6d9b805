"""The document that a check writes, in any format: sheets, a summary, and small pictures of the oddest bins."""

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
from worker.check.layout import BINS, FAILED, UNEXPECTED, WITHOUT_PHOTO, columns
from worker.photo_inputs import file_source

PICTURES = 200
"""Most bins with a picture: more than a person checks in a day, and about a megabyte in the file."""
_KEPT = 5_000
"""Most pictures that are kept until the bins are ranked; 5 kB each."""


def sheets(findings: Findings, folder: ScannedFolder, kept: Sequence[str] = ()) -> list[Sheet]:
    """The list of bins, and sheets of everything that is not in it. `kept`: columns copied from the inventory file."""
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
                    escape_unprintable(one.bin or ""),
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
                    escape_unprintable(photo.bin),
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
                (escape_unprintable(one.bin), *one.kept, one.quantity, describe_articles(one.contents or []))
                for one in findings.without_photo
            ],
        ),
    ]


class Pictures:
    """JPEGs of the oddest bins. A photo that is counted now is shrunk as it is decoded; others are read again."""

    def __init__(self, expected: Iterable[InventoryQuantity]) -> None:
        self._expected = {one.bin: class_of(one.quantity) for one in expected}
        self._kept: dict[Path, bytes] = {}

    def see(self, photo: PhotoFile, decoded: Photo, predicted: int) -> None:
        """Keep a picture of a decoded photo whose count differs, since its bin may be among the oddest."""
        differs = self._expected.get(photo.bin, predicted) != predicted
        if differs and len(self._kept) < _KEPT:
            self._kept[photo.path] = thumbnail_of_photo(decoded, PICTURE_SIDE)

    def of(self, findings: Findings, limits: ImageLimits, pool: Executor) -> dict[Path, bytes]:
        """Pictures of the oddest bins, by file; without files that cannot be read any more."""
        photos = [finding.photo for finding in findings.compared[: min(PICTURES, findings.wrong)]]
        made = pool.map(lambda photo: self._kept.get(photo.path) or _picture(photo, limits), photos)
        return {photo.path: jpeg for photo, jpeg in zip(photos, made, strict=True) if jpeg is not None}


def _bin(finding: Finding) -> tuple[Cell, ...]:
    return (
        finding.verdict,
        escape_unprintable(finding.photo.bin),
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
        describe_articles(finding.articles),
    )


def _link(key: str, path: Path | None) -> Cell:
    return PhotoLink(escape_unprintable(key), path) if path else escape_unprintable(key)


def _picture(photo: PhotoFile, limits: ImageLimits) -> bytes | None:
    try:
        return make_thumbnail(file_source(photo.path, limits.max_bytes).read(), limits, PICTURE_SIDE)
    except PhotoError:
        return None  # deleted since it was counted; the row still has the link
