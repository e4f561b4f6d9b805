"""Tests that a nightly run on SageMaker writes the records that a local worker would write."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import select

from binwatch.bundle import Bundle
from binwatch.errors import BinwatchError
from binwatch.objects import Objects
from binwatch.records.tables import Count
from binwatch.registry import CurrentModel, Registry
from binwatch.settings import Settings
from testing.brightness import brightness_of, jpeg, write_brightness_bundle
from testing.services.s3 import S3
from testing.transform_driver import Faults, TransformDriver
from tests.sagemaker.nights import (
    INVALID_PHOTOS,
    LocalCounter,
    finish,
    models_of,
    on_sagemaker,
    put_photos,
    remaining_keys,
    rows,
    rows_of_local_worker,
)
from worker.sagemaker.nightly.model import archive, archive_key
from worker.sagemaker.nightly.run import Nightly
from worker.sagemaker.nightly.run_paths import RunPaths


def test_records_equal_those_of_local_worker(
    nightly: Nightly,
    settings: Settings,
    s3: S3,
    driver: TransformDriver,
    local: LocalCounter,
    sqlite_records: Database,
    tmp_path: Path,
) -> None:
    put_photos(s3)
    s3.put("odd/a b+ü.jpg", jpeg(brightness_of(6)))  # a key that is not sent to SageMaker
    s3.put("notes.txt", b"no photo")
    run = nightly.start()
    assert run is not None
    assert nightly.estimate(run).startswith("16 photos for SageMaker, 1 for local workers; about 1 s of ml.m5.xlarge")
    ended = finish(nightly, run)
    assert rows(sqlite_records) == rows_of_local_worker(settings, tmp_path)
    assert len(rows(sqlite_records)) == 17
    assert {row["key"]: row["predicted"] for row in rows(sqlite_records) if row["predicted"] is not None} == {
        **{f"bin-images/{number:05}.jpg": number % 7 for number in range(12)},
        "odd/a b+ü.jpg": 6,
    }
    assert local.keys == ["odd/a b+ü.jpg"], nightly.summary(ended)
    assert (ended.outcome.recorded, ended.outcome.local) == (16, 1)
    assert [(job.status, job.reason) for job in ended.outcome.jobs] == [("Completed", None)]
    assert ended.outcome.instance_seconds == ended.outcome.jobs[0].seconds > 0
    assert remaining_keys(s3, settings) == []
    assert ended.sagemaker_model not in models_of(nightly)
    assert nightly.start() is None  # everything has a record
    assert driver.requests == 16


def test_job_parameters_follow_settings(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: LocalCounter
) -> None:
    settings = on_sagemaker(
        settings,
        instance_type="ml.c5.2xlarge",
        instance_count=2,
        concurrent_transforms=8,
        max_payload_mb=12,
        invocation_timeout_s=30,
        invocation_retries=1,
    )
    nightly = Nightly(settings, Objects(settings), sqlite_records, local)
    put_photos(s3, 3)
    driver.may_run_jobs.clear()
    run = nightly.start()
    assert nightly.advance(run).ended is None
    assert nightly.running_jobs(run) == run.jobs
    job = nightly.jobs._client.describe_transform_job(TransformJobName=run.jobs[0])
    assert job["TransformResources"] == {"InstanceType": "ml.c5.2xlarge", "InstanceCount": 2}
    assert (job["MaxConcurrentTransforms"], job["MaxPayloadInMB"], job["BatchStrategy"]) == (8, 12, "SingleRecord")
    assert job["ModelClientConfig"] == {"InvocationsTimeoutInSeconds": 30, "InvocationsMaxRetries": 1}
    model = nightly.jobs._client.describe_model(ModelName=run.sagemaker_model)
    assert model["ExecutionRoleArn"] == settings.sagemaker.role
    assert model["PrimaryContainer"]["Image"] == settings.sagemaker.image
    assert model["PrimaryContainer"]["Environment"]["BINWATCH_MAX_PHOTO_BYTES"] == "20971520"
    manifest = s3.client.get_object(Bucket=s3.bucket, Key=f"nightly/work/{run.token}/manifest-0001")["Body"].read()
    assert json.loads(manifest) == [
        {"prefix": f"s3://{s3.bucket}/"},
        *sorted([*INVALID_PHOTOS, *(f"bin-images/{number:05}.jpg" for number in range(3))]),
    ]
    driver.may_run_jobs.set()
    ended = finish(nightly, run)
    assert ended.outcome.instance_seconds == 2 * ended.outcome.jobs[0].seconds


def test_large_run_is_divided_into_jobs(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: LocalCounter, tmp_path: Path
) -> None:
    settings = on_sagemaker(settings, job_photos=5, max_payload_mb=1)
    put_photos(s3, 12)
    s3.put("large.jpg", jpeg(200) + b"\0" * 1_000_000)  # over the payload
    nightly = Nightly(settings, Objects(settings), sqlite_records, local)
    run = finish(nightly, nightly.start())
    assert [(part.photos, part.job is not None) for part in run.parts] == [
        (5, True),
        (5, True),
        (5, True),
        (1, True),
        (1, False),
    ]
    assert driver.jobs == run.jobs
    assert len(set(run.jobs)) == 4
    assert local.keys == ["large.jpg"]
    assert rows(sqlite_records) == rows_of_local_worker(settings, tmp_path)


FAULTS: dict[str, Callable[[], Faults]] = {
    "the job failed half way": lambda: Faults(max_requests=6),
    "the job failed at once": lambda: Faults(max_requests=0),
    "answers cut short": lambda: Faults(truncated=frozenset({"bin-images/00001.jpg", "bad/not.png"})),
    "answers missing": lambda: Faults(lost=lambda key: key < "bin-images/00004.jpg"),
    "the job was stopped": lambda: Faults(status="Stopped", lost=lambda key: key > "bin-images/00004.jpg"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_photos_without_answer_are_counted_locally(
    nightly: Nightly,
    settings: Settings,
    s3: S3,
    driver: TransformDriver,
    local: LocalCounter,
    sqlite_records: Database,
    tmp_path: Path,
    fault: str,
) -> None:
    put_photos(s3)
    driver.faults = FAULTS[fault]()
    run = finish(nightly, nightly.start())
    assert rows(sqlite_records) == rows_of_local_worker(settings, tmp_path)
    assert run.outcome.recorded + run.outcome.local == len(rows(sqlite_records)) == 16
    assert len(local.keys) == run.outcome.local > 0
    if "failed" in fault:
        assert "Failed (Algorithm error for" in nightly.summary(run)
    assert remaining_keys(s3, settings) == []


def test_photos_that_change_during_job(
    nightly: Nightly, s3: S3, driver: TransformDriver, local: LocalCounter, sqlite_records: Database
) -> None:
    """The counted upload is recorded: either the old one, identified by its MD5, or the new one, counted locally."""
    put_photos(s3, 6)
    etags: dict[str, str] = {}

    def change(key: str) -> None:
        if key == "bin-images/00001.jpg":  # before it is read
            etags[key] = s3.put(key, jpeg(brightness_of(5)))
        if key == "bin-images/00002.jpg":
            s3.client.delete_object(Bucket=s3.bucket, Key=key)
        if key == "bin-images/00005.jpg":  # by now, photo 0 has been read; it is overwritten below
            etags["bin-images/00000.jpg"] = s3.client.head_object(Bucket=s3.bucket, Key="bin-images/00000.jpg")["ETag"]

    driver.faults = Faults(before_photo=change)
    driver.may_run_jobs.clear()
    run = nightly.start()
    nightly.advance(run)
    driver.may_run_jobs.set()
    while nightly.running_jobs(run):
        time.sleep(0.02)  # polling interval
    s3.put("bin-images/00000.jpg", jpeg(brightness_of(6)))
    finish(nightly, run)
    by_key = {row["key"]: row for row in rows(sqlite_records)}
    assert by_key["bin-images/00000.jpg"]["predicted"] == 0
    assert by_key["bin-images/00000.jpg"]["etag"] == etags["bin-images/00000.jpg"].strip('"')
    assert by_key["bin-images/00001.jpg"]["predicted"] == 5
    assert by_key["bin-images/00001.jpg"]["etag"] == etags["bin-images/00001.jpg"]
    assert by_key["bin-images/00002.jpg"]["reason"] == "missing"
    assert sorted(local.keys) == ["bin-images/00001.jpg", "bin-images/00002.jpg"]


def test_etag_that_is_not_md5_is_compared_with_current_upload(
    nightly: Nightly,
    settings: Settings,
    s3: S3,
    driver: TransformDriver,
    local: LocalCounter,
    sqlite_records: Database,
    tmp_path: Path,
) -> None:
    started = s3.client.create_multipart_upload(Bucket=s3.bucket, Key="parts.jpg")["UploadId"]
    name = {"Bucket": s3.bucket, "Key": "parts.jpg", "UploadId": started}
    etag = s3.client.upload_part(**name, PartNumber=1, Body=jpeg(brightness_of(4)))["ETag"]
    s3.client.complete_multipart_upload(**name, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    finish(nightly, nightly.start())
    assert local.keys == []
    (row,) = rows(sqlite_records)
    assert (row["predicted"], row["etag"].endswith("-1")) == (4, True)
    assert [row] == rows_of_local_worker(settings, tmp_path)


def test_only_photos_without_record_of_current_model_are_counted(
    nightly: Nightly,
    settings: Settings,
    s3: S3,
    driver: TransformDriver,
    local: LocalCounter,
    sqlite_records: Database,
    tmp_path: Path,
) -> None:
    put_photos(s3, 4)
    finish(nightly, nightly.start())
    s3.put("bin-images/new.jpg", jpeg(brightness_of(1)))
    finish(nightly, nightly.start())
    assert driver.requests == 9
    other = settings.model_copy(update={"model_dir": write_brightness_bundle(tmp_path / "other", "brightness-2")})
    newer = Nightly(other, Objects(other), sqlite_records, local)
    finish(newer, newer.start("bin-images/0"))
    assert driver.requests == 9 + 4
    with sqlite_records.connect() as connection:
        keys = connection.scalars(select(Count.key).where(Count.model_version == "brightness-2").order_by(Count.key))
        assert list(keys) == [f"bin-images/{number:05}.jpg" for number in range(4)]
    assert nightly.start("bin-images/0") is None
    finish(nightly, nightly.start("bin-images/0", again=True))
    assert driver.requests == 9 + 4 + 4
    assert len(rows(sqlite_records)) == 9 + 4


def test_promoted_model_is_used(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"model_dir": tmp_path / "none"})
    objects = Objects(settings)
    registry = Registry(objects, settings.bucket, settings.models_prefix)
    registry.publish(write_brightness_bundle(tmp_path / "promoted", "brightness-7"))
    registry.set_current(CurrentModel(version="brightness-7", promoted=datetime.now(UTC)), registry.current())
    put_photos(s3, 2)
    s3.put("odd key.jpg", jpeg(brightness_of(6)))
    local = LocalCounter(settings)
    nightly = Nightly(settings, objects, sqlite_records, local)
    run = finish(nightly, nightly.start())
    local.close()
    assert run.sagemaker_model.startswith("binwatch-brightness-7-")
    assert {row["model_version"] for row in rows(sqlite_records)} == {"brightness-7"}
    assert (len(rows(sqlite_records)), driver.requests, local.keys) == (7, 6, ["odd key.jpg"])


def test_answers_of_other_model_are_not_recorded(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: LocalCounter, tmp_path: Path
) -> None:
    """For example, the container may serve the image's own model."""
    put_photos(s3, 2)
    nightly = Nightly(settings, Objects(settings), sqlite_records, local)
    driver.may_run_jobs.clear()
    run = nightly.start()
    nightly.advance(run)
    other = archive(Bundle(write_brightness_bundle(tmp_path / "other", "brightness-9")))
    s3.put(archive_key(settings, run.sagemaker_model), other)
    driver.may_run_jobs.set()
    finish(nightly, run)
    assert {row["model_version"] for row in rows(sqlite_records)} == {"brightness-1"}
    assert len(local.keys) == 6


def test_answers_with_unexpected_keys_are_an_error(
    nightly: Nightly, s3: S3, driver: TransformDriver, local: LocalCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_photos(s3, 2)
    monkeypatch.setattr(RunPaths, "output", lambda folder, part, key: f"{folder.outputs(part)}elsewhere/{key}.out")
    run = nightly.start()
    with pytest.raises(BinwatchError, match=r"SageMaker wrote .* was expected: nothing was recorded"):
        finish(nightly, run)
    assert (local.keys, nightly.runs.active()) == ([], run)
