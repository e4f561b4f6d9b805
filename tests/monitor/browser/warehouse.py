"""A small warehouse: the sample photos in a bucket, counted by the starter model, beside what the inventory expects.

Of five bins the inventory is made to expect something else than it did, as it would after a mistake: these are to be
found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from binwatch.events import ObjectCreated
from binwatch.metadata import QUANTITY_FIELD
from binwatch.settings import Settings
from testing.services.s3 import S3
from worker.counting import Counting

MISTAKES = {"125": 4, "113968": 1, "113871": 2, "113873": 3, "112273": 12}
"""Bin → wrong expected quantity. The model counts all of these bins correctly."""
SAMPLES = Path(__file__).parents[3] / "samples"


@dataclass(frozen=True)
class Warehouse:
    """Records and photos after the worker has processed them."""

    records: Path
    settings: Settings


def fill(s3: S3, records: Path) -> Warehouse:
    """Upload all sample photos with their metadata and count them into `records`, which is empty and migrated."""
    settings = settings_of(s3, records)
    photos, metadata = upload(s3, contents("bin-images")), upload(s3, contents("metadata"))
    with counting(settings) as one:
        assert one.read_metadata(metadata) == []
        assert one.count(photos) == []
    return Warehouse(records, settings)


def settings_of(s3: S3, records: Path) -> Settings:
    """Return the settings of a worker on this bucket with two cores."""
    return Settings(
        bucket=s3.bucket,
        s3_endpoint_url=s3.endpoint_url,
        database_url=SecretStr(f"sqlite:///{records}"),
        inference_threads=2,
        fetch_threads=4,
        slice_pattern=r"/(\d)",
    )


def contents(folder: str) -> dict[str, bytes]:
    """Return key → bytes of the sample files in a folder, with the inventory mistakes applied."""
    return {f"{folder}/{file.name}": _as_recorded(file) for file in sorted((SAMPLES / folder).iterdir())}


def upload(s3: S3, objects: dict[str, bytes]) -> list[ObjectCreated]:
    """Put objects into the bucket and return the events that S3 would send."""
    for key, data in objects.items():
        s3.put(key, data)
    return [ObjectCreated(s3.bucket, key) for key in objects]


@contextmanager
def counting(settings: Settings) -> Iterator[Counting]:
    """Run a worker's Counting until the block ends."""
    one = Counting(settings)
    try:
        yield one
    finally:
        one.close()
        one.database.dispose()  # closing the last connection checkpoints SQLite's write-ahead log


def _as_recorded(file: Path) -> bytes:
    if file.suffix != ".json" or file.stem not in MISTAKES:
        return file.read_bytes()
    return json.dumps(json.loads(file.read_bytes()) | {QUANTITY_FIELD: MISTAKES[file.stem]}).encode()
