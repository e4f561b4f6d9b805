"""Objects that crash workers are recorded and not sent again; a new upload is counted. With moto and SQLite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import select

from binwatch.errors import MetadataReason, Reason
from binwatch.events import ObjectCreated
from binwatch.records.queries import crashed_metadata, crashed_photos
from binwatch.records.tables import Count, Expectation
from binwatch.settings import Settings
from testing.brightness import brightness_of, jpeg
from testing.services.s3 import S3
from worker.counting import Counting
from worker.reconcile import send_unrecorded

WHY = "10 workers crashed while processing only this"


@pytest.fixture
def counting(settings: Settings) -> Iterator[Counting]:
    counting = Counting(settings)
    yield counting
    counting.close()


class Recorder:
    """Replaces Publisher and records what reconcile sends."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def count(self, objects: Sequence[ObjectCreated]) -> None:
        self.sent += [item.key for item in objects]

    read_metadata = count


def _reconciled(counting: Counting, settings: Settings) -> list[str]:
    publisher = Recorder()
    at_once = settings.model_copy(update={"reconcile_grace_s": 0.0})
    send_unrecorded(counting.objects, counting.database, at_once, publisher)  # type: ignore[arg-type]
    return publisher.sent


def _rows(counting: Counting, table: type[Count | Expectation]) -> list[tuple[str | None, str | None, str]]:
    with counting.database.connect() as connection:
        return [tuple(row) for row in connection.execute(select(table.reason, table.detail, table.etag))]


def test_crashed_photo_is_recorded_as_failed(counting: Counting, settings: Settings, s3: S3) -> None:
    etag = s3.put("a.jpg", jpeg(brightness_of(3)))
    photo = ObjectCreated(s3.bucket, "a.jpg")
    assert _reconciled(counting, settings) == ["a.jpg"]
    assert counting.record_crashed_photos([photo], WHY) == []
    detail = f"{WHY}; keep a copy, report it, and upload the photo again"
    assert _rows(counting, Count) == [(Reason.CRASHED, detail, etag)]
    assert _reconciled(counting, settings) == []
    assert counting.crashed_keys([photo], crashed_photos) == {"a.jpg"}
    # It is counted when an operator redrives it after fixing the cause.
    assert counting.count([photo]) == []
    assert _rows(counting, Count) == [(None, None, etag)]


def test_new_upload_is_not_considered_crashed(counting: Counting, settings: Settings, s3: S3) -> None:
    s3.put("a.jpg", jpeg(brightness_of(3)))
    counting.record_crashed_photos([ObjectCreated(s3.bucket, "a.jpg")], WHY)
    s3.put("a.jpg", jpeg(brightness_of(4)))
    assert counting.crashed_keys([ObjectCreated(s3.bucket, "a.jpg")], crashed_photos) == set()
    assert _reconciled(counting, settings) == ["a.jpg"]


def test_crashed_metadata_file_is_recorded_as_failed(counting: Counting, settings: Settings, s3: S3) -> None:
    etag = s3.put("a.json", b'{"EXPECTED_QUANTITY": 3}')
    file = ObjectCreated(s3.bucket, "a.json")
    assert counting.record_crashed_metadata([file], WHY) == []
    ((reason, _, result),) = _rows(counting, Expectation)
    assert (reason, result) == (MetadataReason.CRASHED, etag)
    assert _reconciled(counting, settings) == []
    assert counting.crashed_keys([file], crashed_metadata) == {"a.json"}
    assert counting.crashed_keys([ObjectCreated(s3.bucket, "b.json")], crashed_metadata) == set()


def test_crashed_photo_without_object_is_recorded(counting: Counting, s3: S3) -> None:
    assert counting.record_crashed_photos([ObjectCreated(s3.bucket, "gone.jpg")], WHY) == []
    assert [(reason, etag) for reason, _, etag in _rows(counting, Count)] == [(Reason.CRASHED, "")]
    assert counting.crashed_keys([ObjectCreated(s3.bucket, "gone.jpg")], crashed_photos) == set()


def test_outage_returns_the_crashed_photo(settings: Settings, closed_url: str) -> None:
    counting = Counting(settings.model_copy(update={"s3_endpoint_url": closed_url}))
    (outage,) = counting.record_crashed_photos([ObjectCreated(settings.bucket, "a.jpg")], WHY)
    assert outage.item.key == "a.jpg"
    assert _rows(counting, Count) == []
    counting.close()


def test_objects_on_trial_are_not_sent_again(counting: Counting, settings: Settings, s3: S3) -> None:
    """Each further message could crash as many workers as the first."""
    for key in ("a.jpg", "b.jpg", "a.json"):
        s3.put(key, b"x")
    counting.crash_counts.begin(s3.bucket, "a.jpg")
    counting.crash_counts.begin(s3.bucket, "a.json")
    assert _reconciled(counting, settings) == ["b.jpg"]
    counting.crash_counts.end(s3.bucket, "a.jpg")
    assert _reconciled(counting, settings) == ["a.jpg", "b.jpg"]
