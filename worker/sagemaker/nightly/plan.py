"""Divides the photos of a nightly run into parts for SageMaker and parts for local workers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime

from binwatch.errors import BinwatchError
from binwatch.keys import has_dot_segments
from binwatch.objects import ListedObject, Objects
from binwatch.settings import Settings
from binwatch.text import count_noun
from worker.sagemaker.nightly.run_paths import RunPaths
from worker.sagemaker.nightly.run_store import RunPart

_MAX_PLAN_BYTES = 2**30
_MB = 1_000_000  # SageMaker does not define its MB, so the smaller value is used
_MAX_KEY_BYTES = 1024  # S3's limit, which also applies to the answer's key
_PLAIN_KEY = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")
"""Keys with only S3's safe characters. How SageMaker treats others in a manifest is not documented."""


def write_plan(
    pages: Iterator[list[ListedObject]], objects: Objects, settings: Settings, paths: RunPaths
) -> list[RunPart]:
    """Divide the photos into parts, and write the plan of each, and the manifest of each part for SageMaker.

    At most two parts are in memory, one for SageMaker and one for local workers.
    """
    writer = _PartWriter(objects, paths)
    for_sagemaker: list[ListedObject] = []
    for_workers: list[ListedObject] = []
    for page in pages:
        for photo in page:
            part = for_sagemaker if can_be_sent(photo, settings, paths) else for_workers
            part.append(photo)
            if len(part) == settings.sagemaker.job_photos:
                writer.write(part, to_sagemaker=part is for_sagemaker)
                part.clear()
    writer.write(for_sagemaker, to_sagemaker=True)
    writer.write(for_workers, to_sagemaker=False)
    return writer.parts


def can_be_sent(photo: ListedObject, settings: Settings, paths: RunPaths) -> bool:
    """Return whether SageMaker can read the photo, and will write its answer under the expected key."""
    return (
        photo.size <= min(settings.sagemaker.max_payload_mb * _MB, settings.max_photo_bytes)
        and _PLAIN_KEY.fullmatch(photo.key) is not None
        and not has_dot_segments(photo.key)
        and len(paths.output(0, photo.key)) <= _MAX_KEY_BYTES
    )


def read_plan(objects: Objects, paths: RunPaths, part: RunPart) -> list[ListedObject]:
    """Read the photos of a part. Raises BinwatchError if the plan does not have as many as expected."""
    data = objects.fetch(paths.bucket, paths.plan(part.number), max_bytes=_MAX_PLAN_BYTES).data
    photos = [_parse_line(line) for line in data.splitlines()]
    if len(photos) != part.photos:
        raise BinwatchError(
            f"{paths.url(paths.plan(part.number))}: {count_noun(len(photos), 'photo')} instead of {part.photos:,}"
        )
    return photos


def manifest(bucket: str, photos: list[ListedObject]) -> bytes:
    """Return the photos in SageMaker's ManifestFile format: the common prefix, then the rest of each key."""
    return json.dumps([{"prefix": f"s3://{bucket}/"}, *(photo.key for photo in photos)]).encode()


class _PartWriter:
    """Writes the files of each part, and collects the parts in `parts`."""

    def __init__(self, objects: Objects, paths: RunPaths) -> None:
        self._objects = objects
        self._paths = paths
        self.parts: list[RunPart] = []

    def write(self, photos: list[ListedObject], *, to_sagemaker: bool) -> None:
        if not photos:
            return
        number, bucket = len(self.parts) + 1, self._paths.bucket
        lines = b"".join(_format_line(photo) for photo in photos)
        self._objects.put(bucket, self._paths.plan(number), lines)
        if to_sagemaker:
            self._objects.put(bucket, self._paths.manifest(number), manifest(bucket, photos))
        job = f"binwatch-nightly-{self._paths.token}-{number:04}" if to_sagemaker else None
        self.parts.append(RunPart(number=number, photos=len(photos), job=job))


def _format_line(photo: ListedObject) -> bytes:
    return json.dumps([photo.key, photo.etag, photo.size, photo.modified.isoformat()]).encode() + b"\n"


def _parse_line(line: bytes) -> ListedObject:
    key, etag, size, modified = json.loads(line)
    return ListedObject(key, etag, size, datetime.fromisoformat(modified))
