"""Uploads photos and metadata files from folders, as a camera and an inventory system would."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from binwatch.console import progress_bar
from binwatch.errors import BinwatchError, ObjectsError
from binwatch.keys import PHOTO_SUFFIXES_TEXT, ObjectKind, SkipReason, bin_of_key, kind_of, skip_reason
from binwatch.objects import ObjectRefused, Objects
from binwatch.settings import Settings
from binwatch.text import count_noun, is_valid_unicode
from worker.skipped import SkippedTally

_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Upload:
    """A file and its key."""

    key: str
    path: Path
    kind: ObjectKind


def put_folders(settings: Settings, folders: Sequence[Path]) -> str:
    """Upload every photo and metadata file below `folders`, with a progress bar; returns a message for the user.

    A file that is in the bucket, byte for byte, is not uploaded again, since it would count as a new upload. Raises
    BinwatchError for a folder that does not exist or has no such files, for an unreadable file, and if the object store
    refuses; files uploaded before that stay. Also raises it for names that cannot be keys, after uploading all others.
    """
    skipped = SkippedTally()
    uploads = find(folders, settings.models_prefix, skipped)
    with progress_bar("uploaded", len(uploads)) as advance:
        put(Objects(settings), settings.bucket, uploads, done=lambda: advance(1))
    photos = sum(upload.kind is ObjectKind.PHOTO for upload in uploads)
    said = f"{count_noun(photos, 'photo')} and {count_noun(len(uploads) - photos, 'metadata file')} are in s3://{settings.bucket}/"
    said += f"; not uploaded: {skipped}" if skipped else ""
    if SkipReason.NOT_UTF8 in skipped.counts:
        raise BinwatchError(f"{said}; rename those that are not UTF-8, and start again")
    return said


def find(folders: Sequence[Path], models_prefix: str, skipped: SkippedTally) -> list[Upload]:
    """The files to upload. A key is the folder's name and the file's path below it.

    In the order of the bins, so that a photo and its metadata arrive at about the same time. Other files are added to
    `skipped`. Raises BinwatchError.
    """
    uploads = {upload.key: upload for folder in folders for upload in _below(folder, models_prefix, skipped)}
    return sorted(uploads.values(), key=lambda upload: (bin_of_key(upload.key), upload.key))


def put(objects: Objects, bucket: str, uploads: Sequence[Upload], *, done: Callable[[], object]) -> None:
    """Upload all files, several concurrently; call `done` after each. The first failure stops the upload."""

    def put_one(upload: Upload) -> None:
        try:
            data = upload.path.read_bytes()
        except OSError as error:
            raise BinwatchError(
                f"{upload.path} cannot be read ({error.strerror}); allow it to be read, or remove it"
            ) from error
        if not _is_there(objects, bucket, upload.key, data):
            objects.put(bucket, upload.key, data)
        done()

    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="upload") as pool:
        futures = [pool.submit(put_one, upload) for upload in uploads]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _is_there(objects: Objects, bucket: str, key: str, data: bytes) -> bool:
    """Whether the key has these bytes. False if unknown: uploading then reports the error, or does no harm."""
    try:
        return objects.head(bucket, key).etag == hashlib.md5(data, usedforsecurity=False).hexdigest()
    except (ObjectRefused, ObjectsError):
        return False


def _below(folder: Path, models_prefix: str, skipped: SkippedTally) -> list[Upload]:
    if not folder.is_dir():
        raise BinwatchError(f"{folder}: no such folder; name one with photos and metadata files in it")
    top = Path(os.path.abspath(folder)).name  # noqa: PTH100 (not resolved, so that a link keeps its name)
    wanted: list[Upload] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = f"{top}/{path.relative_to(folder).as_posix()}".lstrip("/")
        kind = kind_of(key, models_prefix)
        if kind is ObjectKind.OTHER:
            skipped.add_name(key, skip_reason(key, models_prefix))
        elif is_valid_unicode(key):
            wanted.append(Upload(key, path, kind))
        else:
            skipped.add_name(key, SkipReason.NOT_UTF8)
    if not wanted:
        others = f"; there are {skipped}" if skipped else ""
        raise BinwatchError(f"{folder}: no photos ({PHOTO_SUFFIXES_TEXT}) and no metadata files (.json) in it{others}")
    return wanted
