"""What is in a folder of photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from binwatch.bin_naming import BY_NAME, BinNaming
from binwatch.errors import BinwatchError
from binwatch.file_versions import file_version
from binwatch.keys import ENDINGS, ObjectKind, Skipped, kind_of
from binwatch.keys import skipped as why_skipped
from binwatch.text import is_text, many
from worker.photo_inputs import files_below, has_photo


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A photo by its name, or by its content. `key` is its path below the folder, `bin` what it shows."""

    key: str
    path: Path
    etag: str
    modified: datetime
    bin: str


@dataclass(frozen=True, slots=True)
class ScannedFolder:
    """All files of a folder, and of those below it."""

    path: Path
    photos: list[PhotoFile] = field(default_factory=list)
    metadata: dict[str, Path] = field(default_factory=dict)
    """By bin."""
    skipped: list[tuple[str, Skipped]] = field(default_factory=list)


def look_through(path: Path, own: Callable[[Path], bool], naming: BinNaming = BY_NAME) -> ScannedFolder:
    """Find the photos. What is the check's `own` is no part of the folder. Raises BinwatchError if there are none.

    `naming` says which bin a file is of, by its path below the folder.
    """
    if not path.is_dir():
        raise BinwatchError(f"{path}: is not a folder; name the folder with the photos")
    folder = ScannedFolder(path)
    for file in sorted(files_below(path)):
        if not own(file):
            _sort_in(folder, file.relative_to(path).as_posix(), file, naming)
    if not folder.photos:
        others = f", only {many(len(folder.skipped), 'other file')}" if folder.skipped else ""
        raise BinwatchError(f"{path}: no photos here ({ENDINGS}){others}; name the folder with the photos")
    return folder


def _version(file: Path) -> tuple[str, datetime]:
    try:
        return file_version(file)
    except OSError:  # reading it will fail, too, and say why
        return "", datetime.fromtimestamp(0, UTC)


def _sort_in(folder: ScannedFolder, key: str, file: Path, naming: BinNaming) -> None:
    kind = kind_of(key)
    if not is_text(key):
        folder.skipped.append((key, Skipped.NOT_UTF8))
    elif kind is ObjectKind.PHOTO or (kind is ObjectKind.OTHER and has_photo(file)):
        folder.photos.append(PhotoFile(key, file, *_version(file), naming(key)))
    elif kind is ObjectKind.METADATA:
        folder.metadata[naming(key)] = file
    else:
        folder.skipped.append((key, why_skipped(key) or Skipped.OTHER_ENDING))
