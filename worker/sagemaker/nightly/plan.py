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
_MB = 1_000_000  # SageMaker does not define its MB, so the smaller one
_MAX_KEY_BYTES = 1024  # S3's limit, also for the answer's key
_PLAIN_KEY = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")
"""Keys of S3's safe characters only. How SageMaker treats others in a manifest is not documented."""


def write_plan(
    pages: Iterator[list[ListedObject]], objects: Objects, settings: Settings, paths: RunPaths
) -> list[RunPart]:
    """Divide the photos into parts, and write the plan and the manifest of each.

    At most two parts are in memory: one for SageMaker and one for local workers.
    """
    writer = _Writer(objects, paths)
    sent: list[ListedObject] = []
    kept: list[ListedObject] = []
    for page in pages:
        for photo in page:
            chosen = sent if can_be_sent(photo, settings, paths) else kept
            chosen.append(photo)
            if len(chosen) == settings.sagemaker.job_photos:
                writer.write(chosen, to_sagemaker=chosen is sent)
                chosen.clear()
    writer.write(sent, to_sagemaker=True)
    writer.write(kept, to_sagemaker=False)
    return writer.parts


def can_be_sent(photo: ListedObject, settings: Settings, paths: RunPaths) -> bool:
    """Whether SageMaker can be relied on to read the photo and to write its answer under the expected key."""
    return (
        photo.size <= min(settings.sagemaker.max_payload_mb * _MB, settings.max_photo_bytes)
        and _PLAIN_KEY.fullmatch(photo.key) is not None
        and not has_dot_segments(photo.key)
        and len(paths.output(0, photo.key)) <= _MAX_KEY_BYTES
    )


def read_plan(objects: Objects, paths: RunPaths, part: RunPart) -> list[ListedObject]:
    """The photos of a part. Raises BinwatchError if some are missing."""
    data = objects.fetch(paths.bucket, paths.plan(part.number), max_bytes=_MAX_PLAN_BYTES).data
    planned = [_parse(line) for line in data.splitlines()]
    if len(planned) != part.photos:
        raise BinwatchError(
            f"{paths.url(paths.plan(part.number))}: {count_noun(len(planned), 'photo')} instead of {part.photos:,}"
        )
    return planned


def manifest(bucket: str, photos: list[ListedObject]) -> bytes:
    """The photos in SageMaker's ManifestFile format: the common prefix, then the rest of each key."""
    return json.dumps([{"prefix": f"s3://{bucket}/"}, *(photo.key for photo in photos)]).encode()


class _Writer:
    def __init__(self, objects: Objects, paths: RunPaths) -> None:
        self._objects = objects
        self._paths = paths
        self.parts: list[RunPart] = []

    def write(self, photos: list[ListedObject], *, to_sagemaker: bool) -> None:
        if not photos:
            return
        number, bucket = len(self.parts) + 1, self._paths.bucket
        lines = b"".join(_line(photo) for photo in photos)
        self._objects.put(bucket, self._paths.plan(number), lines)
        if to_sagemaker:
            self._objects.put(bucket, self._paths.manifest(number), manifest(bucket, photos))
        job = f"binwatch-nightly-{self._paths.token}-{number:04}" if to_sagemaker else None
        self.parts.append(RunPart(number=number, photos=len(photos), job=job))


def _line(photo: ListedObject) -> bytes:
    return json.dumps([photo.key, photo.etag, photo.size, photo.modified.isoformat()]).encode() + b"\n"


def _parse(line: bytes) -> ListedObject:
    key, etag, size, modified = json.loads(line)
    return ListedObject(key, etag, size, datetime.fromisoformat(modified))
