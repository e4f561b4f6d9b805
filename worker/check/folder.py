"""Scans a folder of photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from binwatch.bin_naming import BY_FILE_NAME, BinNaming
from binwatch.errors import BinwatchError
from binwatch.file_versions import file_version
from binwatch.keys import PHOTO_SUFFIXES_TEXT, ObjectKind, SkipReason, kind_of, skip_reason
from binwatch.text import count_noun, is_valid_unicode
from worker.photo_inputs import files_below, has_photo


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A file that is a photo by its name or content."""

    key: str
    """Path below the scanned folder."""
    path: Path
    etag: str
    modified: datetime
    bin: str
    """Bin that the photo shows."""


@dataclass(frozen=True, slots=True)
class ScannedFolder:
    """All files of a folder and its subfolders."""

    path: Path
    photos: list[PhotoFile] = field(default_factory=list)
    metadata: dict[str, Path] = field(default_factory=dict)
    """Bin → metadata file."""
    skipped: list[tuple[str, SkipReason]] = field(default_factory=list)


def scan_folder(path: Path, is_own_file: Callable[[Path], bool], naming: BinNaming = BY_FILE_NAME) -> ScannedFolder:
    """Find the photos and metadata files in a folder. Files that the check itself has written are ignored.

    `naming` maps a path below the folder to a bin. Raises BinwatchError if there are no photos.
    """
    if not path.is_dir():
        raise BinwatchError(f"{path}: is not a folder; name the folder with the photos")
    folder = ScannedFolder(path)
    for file in sorted(files_below(path)):
        if is_own_file(file):
            continue
        key = file.relative_to(path).as_posix()
        kind = kind_of(key)
        if not is_valid_unicode(key):
            folder.skipped.append((key, SkipReason.NOT_UTF8))
        elif kind is ObjectKind.PHOTO or (kind is ObjectKind.OTHER and has_photo(file)):
            folder.photos.append(PhotoFile(key, file, *_version(file), naming(key)))
        elif kind is ObjectKind.METADATA:
            folder.metadata[naming(key)] = file
        else:
            folder.skipped.append((key, skip_reason(key) or SkipReason.OTHER_ENDING))
    if not folder.photos:
        others = f", only {count_noun(len(folder.skipped), 'other file')}" if folder.skipped else ""
        raise BinwatchError(f"{path}: no photos here ({PHOTO_SUFFIXES_TEXT}){others}; name the folder with the photos")
    return folder


def _version(file: Path) -> tuple[str, datetime]:
    try:
        return file_version(file)
    except OSError:  # reading the photo will fail as well, and report the reason
        return "", datetime.fromtimestamp(0, UTC)
