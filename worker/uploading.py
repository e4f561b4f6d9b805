"""Upload photos and metadata files from folders, as a camera and an inventory system would."""

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

_UPLOAD_THREADS = 8


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to upload, and its key."""

    key: str
    path: Path
    kind: ObjectKind


def put_folders(settings: Settings, folders: Sequence[Path]) -> str:
    """Upload every photo and metadata file below `folders`, with a progress bar; return a message for the user.

    A file that the bucket already has, byte for byte, is not uploaded again, since it would count as a new upload.
    Raises BinwatchError for a folder that does not exist or has no such files, for an unreadable file, and if the
    object store refuses an upload; earlier uploads stay. Also raises BinwatchError for names that cannot be keys, after
    uploading all other files.
    """
    skipped = SkippedTally()
    uploads = find_uploads(folders, settings.models_prefix, skipped)
    with progress_bar("uploaded", len(uploads)) as advance:
        put(Objects(settings), settings.bucket, uploads, done=lambda: advance(1))
    n_photos = sum(upload.kind is ObjectKind.PHOTO for upload in uploads)
    files = f"{count_noun(n_photos, 'photo')} and {count_noun(len(uploads) - n_photos, 'metadata file')}"
    summary = f"{files} are in s3://{settings.bucket}/" + (f"; not uploaded: {skipped}" if skipped else "")
    if SkipReason.NOT_UTF8 in skipped.counts:
        raise BinwatchError(f"{summary}; rename those that are not UTF-8, and start again")
    return summary


def find_uploads(folders: Sequence[Path], models_prefix: str, skipped: SkippedTally) -> list[Upload]:
    """Find the files to upload. A key is the name of the folder and the file's path below it.

    Sorted by bin, so that a photo and its metadata arrive at about the same time. Other files are added to `skipped`.
    Raises BinwatchError.
    """
    uploads = {upload.key: upload for folder in folders for upload in _find_in_folder(folder, models_prefix, skipped)}
    return sorted(uploads.values(), key=lambda upload: (bin_of_key(upload.key), upload.key))


def put(objects: Objects, bucket: str, uploads: Sequence[Upload], *, done: Callable[[], object]) -> None:
    """Upload all files, several concurrently; call `done` after each. The first failure stops the upload."""

    def upload_one(upload: Upload) -> None:
        try:
            data = upload.path.read_bytes()
        except OSError as error:
            raise BinwatchError(
                f"{upload.path} cannot be read ({error.strerror}); allow it to be read, or remove it"
            ) from error
        if not _is_uploaded(objects, bucket, upload.key, data):
            objects.put(bucket, upload.key, data)
        done()

    with ThreadPoolExecutor(_UPLOAD_THREADS, thread_name_prefix="upload") as pool:
        futures = [pool.submit(upload_one, upload) for upload in uploads]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _is_uploaded(objects: Objects, bucket: str, key: str, data: bytes) -> bool:
    """Return whether the key has these bytes. False if unknown: the upload then reports the error, or is harmless."""
    try:
        return objects.head(bucket, key).etag == hashlib.md5(data, usedforsecurity=False).hexdigest()
    except (ObjectRefused, ObjectsError):
        return False


def _find_in_folder(folder: Path, models_prefix: str, skipped: SkippedTally) -> list[Upload]:
    if not folder.is_dir():
        raise BinwatchError(f"{folder}: no such folder; name one with photos and metadata files in it")
    folder_name = Path(os.path.abspath(folder)).name  # noqa: PTH100 (not resolved, so that a link keeps its name)
    uploads: list[Upload] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = f"{folder_name}/{path.relative_to(folder).as_posix()}".lstrip("/")
        kind = kind_of(key, models_prefix)
        if kind is ObjectKind.OTHER:
            skipped.add_one(key, skip_reason(key, models_prefix))
        elif is_valid_unicode(key):
            uploads.append(Upload(key, path, kind))
        else:
            skipped.add_one(key, SkipReason.NOT_UTF8)
    if not uploads:
        others = f"; there are {skipped}" if skipped else ""
        raise BinwatchError(f"{folder}: no photos ({PHOTO_SUFFIXES_TEXT}) and no metadata files (.json) in it{others}")
    return uploads
