"""Helpers for tests of nightly runs: uploading photos, finishing a run, and reading what it leaves behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine as Database
from sqlalchemy import select

from binwatch.events import ObjectCreated
from binwatch.objects import Objects
from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.tables import Count
from binwatch.settings import Settings
from testing.brightness import brightness_of, jpeg
from testing.services.s3 import S3
from worker.counting import Counting
from worker.sagemaker.nightly.recount import LocalCounting
from worker.sagemaker.nightly.run import Nightly
from worker.sagemaker.nightly.run_store import NightlyRun

INVALID_PHOTOS = {
    "bad/empty.jpg": b"",
    "bad/not.png": b"not an image",
    "bad/cut.jpg": jpeg(90, side=200)[:-100],
    "bad/avif.jpg": b"\0\0\0\x1cftypavif",
}
TIMEOUT_S = 60


class LocalCounter:
    """Counts photos in this process, as `worker nightly` does, and remembers their keys."""

    def __init__(self, settings: Settings) -> None:
        self.keys: list[str] = []
        self._count = LocalCounting(settings)

    def __call__(self, photos: Sequence[ObjectCreated]) -> None:
        self.keys += [photo.key for photo in photos]
        self._count(photos)

    def close(self) -> None:
        self._count.close()


def on_sagemaker(settings: Settings, **options: Any) -> Settings:
    """A copy of the settings with these SageMaker settings."""
    return settings.model_copy(update={"sagemaker": settings.sagemaker.model_copy(update=options)})


def put_photos(s3: S3, photos: int = 12) -> None:
    for number in range(photos):
        s3.put(f"bin-images/{number:05}.jpg", jpeg(brightness_of(number % 7), side=100 + number))
    for key, data in INVALID_PHOTOS.items():
        s3.put(key, data)


def finish(nightly: Nightly, run: NightlyRun | None) -> NightlyRun:
    """Advance the run until it has ended."""
    assert run is not None
    deadline = time.monotonic() + TIMEOUT_S
    while (run := nightly.advance(run)).ended is None:
        assert time.monotonic() < deadline, "the run does not end"
        time.sleep(0.02)  # polling interval
    return run


def rows(records: Database) -> list[dict[str, Any]]:
    """All counts by key, without id and time of recording."""
    with records.connect() as connection:
        counts = connection.execute(select(Count.__table__).order_by(Count.key, Count.etag)).mappings()
        return [{name: row[name] for name in row if name not in {"id", "recorded_at"}} for row in counts]


def rows_of_local_worker(settings: Settings, tmp_path: Path) -> list[dict[str, Any]]:
    """The rows that `worker run` would record for the bucket."""
    path = tmp_path / f"local-{uuid.uuid4().hex}.db"
    database = connect(f"sqlite:///{path}")
    migrate(database)
    counting = Counting(settings.model_copy(update={"database_url": type(settings.database_url)(str(database.url))}))
    listed = [photo for photo in Objects(settings).list(settings.bucket) if photo.key.endswith((".jpg", ".png"))]
    assert counting.count([ObjectCreated(settings.bucket, photo.key, photo.modified) for photo in listed]) == []
    counting.close()
    recorded = rows(database)
    counting.database.dispose()
    database.dispose()
    return recorded


def remaining_keys(s3: S3, settings: Settings) -> list[str]:
    """Keys below nightly/ that still exist, except those of the runs themselves."""
    entries = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix="nightly/").get("Contents", [])
    return [entry["Key"] for entry in entries if not entry["Key"].startswith("nightly/runs/")]


def models_of(nightly: Nightly) -> list[str]:
    return [model["ModelName"] for model in nightly.jobs._client.list_models()["Models"]]
