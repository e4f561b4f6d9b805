"""Uploads photos and metadata files to the bucket, as a camera and an inventory system would."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from binwatch.errors import BinwatchError
from binwatch.keys import PHOTO_SUFFIXES_TEXT, ObjectKind, kind_of
from binwatch.objects import Objects
from binwatch.text import escape_unprintable, is_valid_unicode
from worker.uploading import Upload

_UPLOAD_THREADS = 8


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """Files to upload."""

    photos: list[Upload]
    metadata: list[Upload]


def find_uploads(photos: Path, metadata: Path | None) -> UploadPlan:
    """Find the photos and metadata files in two folders; their keys are those of the Amazon Bin Image Dataset.

    Raises BinwatchError if a folder does not exist or there is no photo.
    """
    plan = UploadPlan(
        photos=_uploads(photos, "bin-images/", ObjectKind.PHOTO),
        metadata=_uploads(metadata, "metadata/", ObjectKind.METADATA) if metadata else [],
    )
    if not plan.photos:
        raise BinwatchError(f"{photos}: no photos here ({PHOTO_SUFFIXES_TEXT})")
    return plan


def _uploads(folder: Path, prefix: str, kind: ObjectKind) -> list[Upload]:
    if not folder.is_dir():
        raise BinwatchError(f"{folder}: no such folder; name one with --photos or --metadata")
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and kind_of(path.name) is kind)
    uploads = [Upload(prefix + path.relative_to(folder).as_posix(), path, kind) for path in files]
    for upload in uploads:
        if not is_valid_unicode(upload.key):
            raise BinwatchError(
                f"'{escape_unprintable(str(upload.path))}': the name is not UTF-8, so it cannot be a key; rename it"
            )
    return uploads


def upload_all(
    objects: Objects, bucket: str, plan: UploadPlan, *, on_uploaded: Callable[[], object], stopping: Event
) -> None:
    """Upload all files of `plan`. Calls `on_uploaded` after each object; stops early once `stopping` is set."""

    def upload_file(upload: Upload) -> None:
        if not stopping.is_set():
            objects.put(bucket, upload.key, upload.path.read_bytes())
            on_uploaded()

    # By file name, so that a photo and its metadata arrive at about the same time, in either order.
    uploads = sorted([*plan.photos, *plan.metadata], key=lambda upload: upload.path.name)
    with ThreadPoolExecutor(_UPLOAD_THREADS, thread_name_prefix="upload") as pool:
        for future in [pool.submit(upload_file, upload) for upload in uploads]:
            future.result()
