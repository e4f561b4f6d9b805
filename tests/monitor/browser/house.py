"""A small warehouse: the sample photos in a bucket, counted by the starter model, beside what the inventory expects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from binwatch.events import Created
from binwatch.settings import Settings
from tests.services.s3 import S3
from worker.counting import Counting

SAMPLES = Path(__file__).parents[3] / "samples"


@dataclass(frozen=True)
class House:
    """Records and photos, as the worker left them."""

    records: Path
    settings: Settings


def fill(s3: S3, records: Path) -> House:
    """Upload all sample photos with their metadata and count them into `records`, which is empty and migrated."""
    settings = Settings(
        bucket=s3.bucket,
        s3_endpoint_url=s3.endpoint_url,
        database_url=SecretStr(f"sqlite:///{records}"),
        inference_threads=2,
        fetch_threads=4,
    )
    photos = _upload(s3, sorted((SAMPLES / "bin-images").glob("*.jpg")))
    metadata = _upload(s3, sorted((SAMPLES / "metadata").glob("*.json")))
    with _counting(settings) as counting:
        assert counting.read_metadata(metadata) == []
        assert counting.count(photos) == []
    return House(records, settings)


def _upload(s3: S3, files: list[Path]) -> list[Created]:
    keys = [f"{file.parent.name}/{file.name}" for file in files]
    for key, file in zip(keys, files, strict=True):
        s3.put(key, file.read_bytes())
    return [Created(s3.bucket, key) for key in keys]


@contextmanager
def _counting(settings: Settings) -> Iterator[Counting]:
    counting = Counting(settings)
    try:
        yield counting
    finally:
        counting.close()
        counting.database.dispose()  # the last connection moves what SQLite's log holds into the file
