"""From objects in moto's S3 to records in SQLite: every photo and metadata file has its own outcome."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine as Database
from sqlalchemy import event, func, select, update

from binwatch.bundle import Calibration
from binwatch.errors import BinwatchError, MetadataReason, Reason
from binwatch.events import ObjectCreated
from binwatch.objects import Objects
from binwatch.records.engine import DriverError
from binwatch.records.store import RecordsNotWritable
from binwatch.records.tables import Comparison, Count, Expectation, Model, PhotoTotal
from binwatch.settings import EventSource, Settings
from testing.brightness import brightness_of, jpeg, probabilities_of
from testing.photos import png
from testing.services.s3 import S3
from tests.calibrations import category
from worker.counting import Counting, open_records
from worker.health import HealthChecks
from worker.inference_sessions import CPU_PROVIDER, ModelOutput
from worker.reconcile import unrecorded_pages
from worker.tasks import _is_outage

WHEN = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


@pytest.fixture
def counting(settings: Settings) -> Iterator[Counting]:
    counting = Counting(settings)
    yield counting
    counting.close()


@pytest.fixture
def records(sqlite_records: Database) -> Any:
    """Return a function that reads the rows of a table as dictionaries, by one column."""

    def read(table: Any, by: str) -> dict[Any, dict[str, Any]]:
        with sqlite_records.connect() as connection:
            rows = [dict(row) for row in connection.execute(select(table.__table__)).mappings()]
        result = {row[by]: row for row in rows}
        assert len(result) == len(rows), f"{by} is not unique in {rows}"
        return result

    return read


def _created(s3: S3, *keys: str) -> list[ObjectCreated]:
    return [ObjectCreated(s3.bucket, key, WHEN) for key in keys]


BAD_PHOTOS = {
    "empty.jpg": (b"", Reason.EMPTY),
    "text.jpg": (b"this is not a photo", Reason.NOT_AN_IMAGE),
    "truncated.jpg": (jpeg(100)[:-600], Reason.TRUNCATED),
    "huge.png": (png(20_000, 20_000, 1, 0, bytes(1000)), Reason.TOO_MANY_PIXELS),
    "large.jpg": (jpeg(100) + bytes(200_000), Reason.TOO_LARGE),
    "pdf.jpg": (b"%PDF-1.7" + bytes(40), Reason.UNSUPPORTED_FORMAT),
    "header.png": (b"\x89PNG\r\n\x1a\n" + bytes(20), Reason.CORRUPT),
    "missing.jpg": (None, Reason.MISSING),
}
HARD_KEYS = ["with space.jpg", "a+b.jpg", "100%.jpg", "ü.jpg", "a/b c/d+e/%2F.jpg", "日本.jpg", "'\"<>&.jpg"]


def test_counted(counting: Counting, s3: S3, records: Any) -> None:
    data = jpeg(brightness_of(4), side=300)
    etag = s3.put("bin-images/00123.jpg", data)
    assert counting.count(_created(s3, "bin-images/00123.jpg")) == []
    row = records(Count, "key")["bin-images/00123.jpg"]
    expected = {
        "bucket": s3.bucket,
        "key": "bin-images/00123.jpg",
        "etag": etag,
        "version_id": None,
        "bin_id": "00123",
        "model_version": "brightness-1",
        "precision": "int8",
        "provider": CPU_PROVIDER,
        "reason": None,
        "detail": None,
        "predicted": 4,
        "width": 300,
        "height": 300,
        "bytes": len(data),
    }
    assert {name: row[name] for name in expected} == expected
    assert row["probabilities"] == pytest.approx(probabilities_of(brightness_of(4)), abs=1e-3)
    stored = s3.client.head_object(Bucket=s3.bucket, Key="bin-images/00123.jpg")["LastModified"]
    assert row["modified_at"] == stored


def test_pattern_maps_photos_and_metadata_to_bins(settings: Settings, s3: S3, records: Any) -> None:
    """Two photos of one bin are counted separately."""
    settings = settings.model_copy(update={"bin_pattern": r"(?P<bin>[^/]+)/[^/]+$"})
    counting = Counting(settings)
    for key in ("A-12/front.jpg", "A-12/back.jpg"):
        s3.put(key, jpeg(brightness_of(4)))
    s3.put("A-12/data.json", b'{"EXPECTED_QUANTITY": 4}')
    assert counting.count(_created(s3, "A-12/front.jpg", "A-12/back.jpg")) == []
    assert counting.read_metadata(_created(s3, "A-12/data.json")) == []
    assert {key: row["bin_id"] for key, row in records(Count, "key").items()} == {
        "A-12/front.jpg": "A-12",
        "A-12/back.jpg": "A-12",
    }
    assert records(Expectation, "source")["A-12/data.json"]["bin_id"] == "A-12"
    (page,) = unrecorded_pages(counting.objects, counting.database, settings, bucket=s3.bucket)
    assert (page.photos, page.metadata) == ([], [])
    counting.close()


def test_count_is_compared_with_the_calibration_of_its_model(
    counting: Counting, s3: S3, records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expected quantity is stored with its articles."""
    calibration = Calibration(photos=3, split="test", categories=(category((0.0, 0.5, 1.0)),))
    engine = counting.models.engine
    monkeypatch.setattr(engine, "card", engine.card.model_copy(update={"calibration": calibration}))
    s3.put("00123.jpg", jpeg(brightness_of(4)))
    items = {"B01": {"name": "A mug", "quantity": 1}}
    s3.put("00123.json", json.dumps({"EXPECTED_QUANTITY": 1, "BIN_FCSKU_DATA": items}).encode())
    counting.read_metadata(_created(s3, "00123.json"))
    counting.count(_created(s3, "00123.jpg"))
    assert records(Expectation, "bin_id")["00123"]["contents"] == [{"sku": "B01", "name": "A mug", "quantity": 1}]
    assert records(Model, "model_version")["brightness-1"]["calibration"] == calibration.model_dump(mode="json")
    compared = records(Comparison, "bin_id")["00123"]
    assert compared["chance"] == pytest.approx(probabilities_of(brightness_of(4))[1], abs=1e-3)
    assert compared["p_value"] == 0.5, "(1 + 1) / (1 + 3): one of three calibration photos has a score at least as high"


def test_bad_photos_have_reasons_and_others_are_counted(settings: Settings, s3: S3, records: Any) -> None:
    counting = Counting(settings.model_copy(update={"max_photo_bytes": 100_000, "batch_size": 3}))
    keys: list[str] = []
    for n, (key, (data, _)) in enumerate(BAD_PHOTOS.items()):
        if data is not None:
            s3.put(key, data)
        s3.put(f"good {n}.jpg", jpeg(brightness_of(n % 7)))
        keys += [key, f"good {n}.jpg"]
    assert counting.count(_created(s3, *keys)) == []
    counting.close()
    rows = records(Count, "key")
    assert {key: rows[key]["reason"] for key in BAD_PHOTOS} == {key: why for key, (_, why) in BAD_PHOTOS.items()}
    assert all(rows[key]["detail"] and rows[key]["predicted"] is None for key in BAD_PHOTOS)
    good = {f"good {n}.jpg": n % 7 for n in range(len(BAD_PHOTOS))}
    assert {key: rows[key]["predicted"] for key in good} == good
    assert len(rows) == len(keys)
    # Objects that were refused unread are still recorded with their ETag; missing objects get the time of their event.
    assert rows["large.jpg"]["etag"] == s3.put("large.jpg", BAD_PHOTOS["large.jpg"][0])
    assert rows["large.jpg"]["modified_at"] > WHEN
    assert (rows["missing.jpg"]["etag"], rows["missing.jpg"]["modified_at"]) == ("", WHEN)
    assert records(PhotoTotal, "reason")[""]["photos"] == len(BAD_PHOTOS)
    assert all(records(PhotoTotal, "reason")[why]["photos"] == 1 for _, why in BAD_PHOTOS.values())


def test_hard_keys(counting: Counting, s3: S3, records: Any) -> None:
    for n, key in enumerate(HARD_KEYS):
        s3.put(key, jpeg(brightness_of(n)))
        s3.put(key.replace(".jpg", ".json"), json.dumps({"EXPECTED_QUANTITY": n}).encode())
    assert counting.count(_created(s3, *HARD_KEYS)) == []
    assert counting.read_metadata(_created(s3, *(key.replace(".jpg", ".json") for key in HARD_KEYS))) == []
    rows = records(Count, "key")
    assert {key: rows[key]["predicted"] for key in HARD_KEYS} == {key: n for n, key in enumerate(HARD_KEYS)}
    compared = records(Comparison, "expected")
    assert {n: (compared[n]["predicted"], compared[n]["outcome"]) for n in range(7)} == {
        n: (n, "exact") for n in range(7)
    }


def test_inference_fails(counting: Counting, s3: S3, records: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = counting.models.engine.infer

    def fail_on_white(photos: np.ndarray) -> ModelOutput:
        if (photos.min(axis=(1, 2, 3)) == 255).any():
            raise RuntimeError("out of luck")
        return infer(photos)

    monkeypatch.setattr(counting.models.engine, "infer", fail_on_white)
    levels = {"0.jpg": 0, "1.jpg": 255, "2.jpg": brightness_of(2)}
    for key, level in levels.items():
        s3.put(key, jpeg(level))
    assert counting.count(_created(s3, *levels)) == []
    rows = records(Count, "key")
    assert [rows[key]["predicted"] for key in levels] == [0, None, 2]
    assert (rows["1.jpg"]["reason"], rows["1.jpg"]["width"]) == (Reason.INFERENCE_FAILED, 256)
    assert rows["1.jpg"]["detail"] == "ONNX Runtime failed on this photo: out of luck"


def test_record_matches_the_fetched_object(
    counting: Counting, s3: S3, sqlite_records: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is overwritten before it is fetched, and again during inference."""
    s3.put("a.jpg", jpeg(brightness_of(1)))
    event = _created(s3, "a.jpg")
    second = s3.put("a.jpg", jpeg(brightness_of(2)))
    infer, later = counting.models.engine.infer, []

    def overwrite_and_infer(photos: np.ndarray) -> ModelOutput:
        later.append(s3.put("a.jpg", jpeg(brightness_of(3))))
        return infer(photos)

    with monkeypatch.context() as patch:
        patch.setattr(counting.models.engine, "infer", overwrite_and_infer)
        counting.count(event)
    counting.count(event)
    with sqlite_records.connect() as connection:
        rows = connection.execute(select(Count.etag, Count.predicted).order_by(Count.id)).all()
    assert [tuple(row) for row in rows] == [(second, 2), (later[0], 3)]


def test_delivered_three_times(counting: Counting, s3: S3, sqlite_records: Database) -> None:
    s3.put("a.jpg", jpeg(brightness_of(5)))
    s3.put("a.json", b'{"EXPECTED_QUANTITY": 4}')
    for _ in range(3):
        counting.count(_created(s3, "a.jpg", "a.jpg", "gone.jpg"))
        counting.read_metadata(_created(s3, "a.json", "a.json", "gone.json"))
    with sqlite_records.connect() as connection:
        rows = {table: connection.scalar(select(func.count()).select_from(table)) for table in (Count, Expectation)}
        compared = connection.execute(select(Comparison.predicted, Comparison.expected, Comparison.outcome)).all()
    assert rows == {Count: 2, Expectation: 2}
    assert [tuple(row) for row in compared] == [(5, 4, "over")]


BAD_METADATA = {
    "words.json": (b"two items", MetadataReason.NOT_JSON),
    "empty.json": (b"", MetadataReason.NOT_JSON),
    "latin.json": (b'{"EXPECTED_QUANTITY": 1, "name": "\xfc"}', MetadataReason.NOT_JSON),
    "deep.json": (b"[" * 100_000, MetadataReason.NOT_JSON),
    "lacks.json": (b'{"QUANTITY": 3}', MetadataReason.NO_QUANTITY),
    "list.json": (b"[3]", MetadataReason.NO_QUANTITY),
    "negative.json": (b'{"EXPECTED_QUANTITY": -1}', MetadataReason.BAD_QUANTITY),
    "half.json": (b'{"EXPECTED_QUANTITY": 1.5}', MetadataReason.BAD_QUANTITY),
    "null.json": (b'{"EXPECTED_QUANTITY": null}', MetadataReason.BAD_QUANTITY),
    "large.json": (b'{"EXPECTED_QUANTITY": 1}' + b" " * 200_000, MetadataReason.TOO_LARGE),
    "missing.json": (None, MetadataReason.MISSING),
}


def test_bad_metadata_files_have_reasons(settings: Settings, s3: S3, records: Any) -> None:
    counting = Counting(settings.model_copy(update={"max_metadata_bytes": 150_000}))
    for key, (data, _) in BAD_METADATA.items():
        if data is not None:
            s3.put(key, data)
    s3.put("good.json", b'{"EXPECTED_QUANTITY": 12}')
    assert counting.read_metadata(_created(s3, *BAD_METADATA, "good.json")) == []
    counting.close()
    rows = records(Expectation, "source")
    assert {key: rows[key]["reason"] for key in BAD_METADATA} == {key: why for key, (_, why) in BAD_METADATA.items()}
    assert all(rows[key]["quantity"] is None and rows[key]["detail"] for key in BAD_METADATA)
    good = rows["good.json"]
    assert (good["quantity"], good["reason"], good["bin_id"]) == (12, None, "good")
    assert rows["missing.json"]["modified_at"] == WHEN
    assert rows["large.json"]["modified_at"] > WHEN  # by the store's clock


def test_outage_of_s3_records_nothing(settings: Settings, closed_url: str, records: Any) -> None:
    counting = Counting(settings)
    counting.objects = Objects(settings.model_copy(update={"s3_endpoint_url": closed_url}))
    photos = [ObjectCreated("a-bucket", f"{n}.jpg", WHEN) for n in range(3)]
    files = [ObjectCreated("a-bucket", f"{n}.json", WHEN) for n in range(3)]
    assert [outage.item for outage in counting.count(photos)] == photos
    outages = counting.read_metadata(files)
    counting.close()
    assert [outage.item for outage in outages] == files
    assert f's3://a-bucket/0.json: Could not connect to the endpoint URL: "{closed_url}' in str(outages[0].error)
    assert records(Count, "key") == {}
    assert records(Expectation, "source") == {}


def test_outage_returns_only_affected_photos(counting: Counting, s3: S3, records: Any) -> None:
    s3.put("a.jpg", jpeg(0))
    s3.put("a.json", b'{"EXPECTED_QUANTITY": 0}')
    elsewhere = [ObjectCreated("no-such-bucket", "b.jpg", WHEN), ObjectCreated("no-such-bucket", "b.json", WHEN)]
    assert [o.item for o in counting.count([elsewhere[0], *_created(s3, "a.jpg")])] == [elsewhere[0]]
    assert [o.item for o in counting.read_metadata([elsewhere[1], *_created(s3, "a.json")])] == [elsewhere[1]]
    assert {key: row["predicted"] for key, row in records(Count, "key").items()} == {"a.jpg": 0}
    assert {key: row["quantity"] for key, row in records(Expectation, "source").items()} == {"a.json": 0}


def test_age_is_observed_for_waiting_photos_only(
    counting: Counting, settings: Settings, s3: S3, sqlite_records: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for photos older than Binwatch or already recorded; the age of a missing photo is unknown."""
    now = datetime.now(UTC)
    counting.note_model()
    with sqlite_records.begin() as connection:
        connection.execute(update(Model).values(first_at=now - timedelta(hours=1)))
    for key, minutes in (("before.jpg", 120), ("late.jpg", 10), ("in time.jpg", 0), ("empty.jpg", 10)):
        stored = (now - timedelta(minutes=minutes)).replace(tzinfo=None)
        monkeypatch.setattr("moto.s3.models.utcnow", lambda stored=stored: stored)
        s3.put(key, b"" if key == "empty.jpg" else jpeg(100))
    keys = ("before.jpg", "late.jpg", "in time.jpg", "empty.jpg", "gone.jpg")
    photos = [ObjectCreated(s3.bucket, key) for key in keys]
    scheduled = Counting(settings.model_copy(update={"event_source": EventSource.NONE}))
    assert scheduled.count(photos[2:3]) == []
    assert scheduled.metrics.registry.get_sample_value("binwatch_worker_photo_age_seconds_count") == 0
    scheduled.close()
    for _ in ("first", "redelivered"):
        assert counting.count(photos) == []
    with sqlite_records.begin() as connection:
        connection.execute(update(Count).values(model_version="before"))
    assert counting.count(photos[:2]) == []
    value = counting.metrics.registry.get_sample_value
    assert value("binwatch_worker_photos_total", {"outcome": "counted", "reason": ""}) == 3 + 3 + 2
    assert value("binwatch_worker_photo_age_seconds_bucket", {"le": "60.0"}) == 2, "redelivered within a minute"
    assert value("binwatch_worker_photo_age_seconds_count") == 4
    assert value("binwatch_worker_photo_age_seconds_sum") == pytest.approx(1200, abs=60)


def test_nothing_to_do(counting: Counting) -> None:
    assert counting.count([]) == []
    assert counting.read_metadata([]) == []


def test_records_need_a_migration(settings: Settings, tmp_path: Any) -> None:
    with pytest.raises(BinwatchError, match="python -m worker migrate"):
        Counting(settings.model_copy(update={"database_url": SecretStr(f"sqlite:///{tmp_path / 'new.db'}")}))


def test_unwritable_records_are_not_blamed_on_a_photo(settings: Settings, s3: S3, postgres_url: str) -> None:
    """If psycopg cannot read a timestamp, it raises an exception that is not a database error."""
    s3.put("a.jpg", jpeg(brightness_of(4)))
    counting = Counting(settings.model_copy(update={"database_url": SecretStr(postgres_url)}))
    spoil = "SET LOCAL DateStyle TO 'SQL, DMY'"
    event.listen(counting.database, "begin", listener := lambda connection: connection.exec_driver_sql(spoil))
    with pytest.raises(
        RecordsNotWritable, match=r"the database cannot be used: NotImplementedError: .*DateStyle"
    ) as raised:
        counting.count(_created(s3, "a.jpg"))
    assert _is_outage(raised.value)
    assert "DateStyle" in str(HealthChecks(counting.probes()).problems()["records"])
    event.remove(counting.database, "begin", listener)
    assert counting.count(_created(s3, "a.jpg")) == []
    counting.close()
    counting.database.dispose()


def test_unstorable_data_is_blamed_on_the_object(counting: Counting, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put("a.json", b'{"EXPECTED_QUANTITY": 2}')
    monkeypatch.setattr("worker.counting.expected_quantity", lambda _: 2**70)
    with pytest.raises(DriverError, match="OverflowError") as raised:
        counting.read_metadata(_created(s3, "a.json"))
    assert not _is_outage(raised.value)


def test_vanished_database_is_detected(settings: Settings, postgres_url: str) -> None:
    """The driver gets keepalive options unless the URL sets them."""
    for url, timeout in ((postgres_url, "60000"), (f"{postgres_url}&tcp_user_timeout=7000", "7000")):
        database = open_records(settings.model_copy(update={"database_url": SecretStr(url)}))
        with database.connect() as connection:
            parameters = connection.connection.driver_connection.info.get_parameters()
        database.dispose()
        assert (parameters["tcp_user_timeout"], parameters["keepalives_idle"], parameters["connect_timeout"]) == (
            timeout,
            "30",
            "10",
        )


def test_database_is_unreachable(settings: Settings, tmp_path: Any) -> None:
    with pytest.raises(BinwatchError, match=r"the database cannot be used: .*; BINWATCH_DATABASE_URL is not set"):
        Counting(settings.model_copy(update={"database_url": SecretStr(f"sqlite:///{tmp_path}/no/such/folder.db")}))
