"""The nightly run on SageMaker: its records are those of a local worker, whatever goes wrong and whenever it ends."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from sqlalchemy import Engine as Database
from sqlalchemy import select

from binwatch.aws import AwsError, QuotaError
from binwatch.bundle import Bundle
from binwatch.errors import BinwatchError
from binwatch.events import Created
from binwatch.objects import Listed, Objects
from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.tables import Count
from binwatch.registry import Current, Registry
from binwatch.settings import Settings
from tests.sagemaker.conftest import settings_for
from tests.sagemaker.transform_driver import Faults, TransformDriver
from tests.services.s3 import S3
from tests.worker.brightness import brightness_of, jpeg, write_brightness_bundle
from worker.counting import Counting
from worker.nightly import cost
from worker.nightly.folder import Folder, folder_of
from worker.nightly.ledger import Outcome, Run
from worker.nightly.local import InProcess
from worker.nightly.model import archive, archive_key
from worker.nightly.plan import can_be_sent
from worker.nightly.run import Nightly

WITHIN_S = 60
BAD = {
    "bad/empty.jpg": b"",
    "bad/not.png": b"not an image",
    "bad/cut.jpg": jpeg(90, side=200)[:-100],
    "bad/tiff.jpg": b"II*\x00",
}


class Local:
    """Counts in this process, as `worker nightly` does, and remembers what."""

    def __init__(self, settings: Settings) -> None:
        self.keys: list[str] = []
        self._count = InProcess(settings)

    def __call__(self, photos: Sequence[Created]) -> None:
        self.keys += [photo.key for photo in photos]
        self._count(photos)

    def close(self) -> None:
        self._count.close()


@pytest.fixture
def local(settings: Settings) -> Iterator[Local]:
    local = Local(settings)
    yield local
    local.close()


@pytest.fixture
def nightly(settings: Settings, sqlite_records: Database, local: Local) -> Nightly:
    return Nightly(settings, Objects(settings), sqlite_records, local)


def put_photos(s3: S3, photos: int = 12) -> None:
    for number in range(photos):
        s3.put(f"bin-images/{number:05}.jpg", jpeg(brightness_of(number % 7), side=100 + number))
    for key, data in BAD.items():
        s3.put(key, data)


def finish(nightly: Nightly, run: Run | None) -> Run:
    """Look again and again until the run has ended."""
    assert run is not None
    deadline = time.monotonic() + WITHIN_S
    while (run := nightly.advance(run)).ended is None:
        assert time.monotonic() < deadline, "the run does not end"
        time.sleep(0.02)  # between two looks at the condition
    return run


def rows(records: Database) -> list[dict[str, Any]]:
    """All counts, but for when and in which order they were written."""
    with records.connect() as connection:
        found = connection.execute(select(Count.__table__).order_by(Count.key, Count.etag)).mappings()
        return [{name: row[name] for name in row if name not in {"id", "recorded_at"}} for row in found]


def rows_of_a_local_worker(settings: Settings, tmp_path: Path) -> list[dict[str, Any]]:
    """What `worker run` records of the same bucket."""
    path = tmp_path / f"local-{uuid.uuid4().hex}.db"
    database = connect(f"sqlite:///{path}")
    migrate(database)
    counting = Counting(settings.model_copy(update={"database_url": type(settings.database_url)(str(database.url))}))
    listed = [photo for photo in Objects(settings).list(settings.bucket) if photo.key.endswith((".jpg", ".png"))]
    assert counting.count([Created(settings.bucket, photo.key, photo.modified) for photo in listed]) == []
    counting.close()
    found = rows(database)
    counting.database.dispose()
    database.dispose()
    return found


def left_in(s3: S3, settings: Settings) -> list[str]:
    """Keys of nightly runs that are still there, but for the ledger."""
    found = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix="nightly/").get("Contents", [])
    return [entry["Key"] for entry in found if not entry["Key"].startswith("nightly/runs/")]


def models_of(nightly: Nightly) -> list[str]:
    return [model["ModelName"] for model in nightly.jobs._client.list_models()["Models"]]


def test_records_are_those_of_a_local_worker(
    nightly: Nightly,
    settings: Settings,
    s3: S3,
    driver: TransformDriver,
    local: Local,
    sqlite_records: Database,
    tmp_path: Path,
) -> None:
    put_photos(s3)
    s3.put("odd/a b+ü.jpg", jpeg(brightness_of(6)))  # SageMaker is not sent a key like this
    s3.put("notes.txt", b"no photo")
    run = nightly.start()
    assert run is not None
    assert nightly.estimate(run).startswith("16 photos for SageMaker, 1 for local workers; about 1 s of ml.m5.xlarge")
    ended = finish(nightly, run)
    assert rows(sqlite_records) == rows_of_a_local_worker(settings, tmp_path)
    assert len(rows(sqlite_records)) == 17
    assert {row["key"]: row["predicted"] for row in rows(sqlite_records) if row["predicted"] is not None} == {
        **{f"bin-images/{number:05}.jpg": number % 7 for number in range(12)},
        "odd/a b+ü.jpg": 6,
    }
    assert local.keys == ["odd/a b+ü.jpg"], nightly.summary(ended)
    assert (ended.outcome.recorded, ended.outcome.local) == (16, 1)
    assert [(job.status, job.reason) for job in ended.outcome.jobs] == [("Completed", None)]
    assert ended.outcome.instance_seconds == ended.outcome.jobs[0].seconds > 0
    assert left_in(s3, settings) == []
    assert ended.sagemaker_model not in models_of(nightly)
    assert nightly.start() is None  # everything has a record
    assert driver.requests == 16


def test_the_job_is_started_as_the_settings_say(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: Local
) -> None:
    settings = settings.model_copy(
        update={
            "sagemaker_instance_type": "ml.c5.2xlarge",
            "sagemaker_instance_count": 2,
            "sagemaker_concurrent_transforms": 8,
            "sagemaker_max_payload_mb": 12,
            "sagemaker_invocation_timeout_s": 30,
            "sagemaker_invocation_retries": 1,
        }
    )
    nightly = Nightly(settings, Objects(settings), sqlite_records, local)
    put_photos(s3, 3)
    driver.may_play.clear()
    run = nightly.start()
    assert nightly.advance(run).ended is None
    assert nightly.running(run) == run.jobs
    job = nightly.jobs._client.describe_transform_job(TransformJobName=run.jobs[0])
    assert job["TransformResources"] == {"InstanceType": "ml.c5.2xlarge", "InstanceCount": 2}
    assert (job["MaxConcurrentTransforms"], job["MaxPayloadInMB"], job["BatchStrategy"]) == (8, 12, "SingleRecord")
    assert job["ModelClientConfig"] == {"InvocationsTimeoutInSeconds": 30, "InvocationsMaxRetries": 1}
    model = nightly.jobs._client.describe_model(ModelName=run.sagemaker_model)
    assert model["ExecutionRoleArn"] == settings.sagemaker_role
    assert model["PrimaryContainer"]["Image"] == settings.sagemaker_image
    assert model["PrimaryContainer"]["Environment"]["BINWATCH_MAX_PHOTO_BYTES"] == "20971520"
    manifest = s3.client.get_object(Bucket=s3.bucket, Key=f"nightly/work/{run.token}/manifest-0001")["Body"].read()
    assert json.loads(manifest) == [
        {"prefix": f"s3://{s3.bucket}/"},
        *sorted([*BAD, *(f"bin-images/{number:05}.jpg" for number in range(3))]),
    ]
    driver.may_play.set()
    ended = finish(nightly, run)
    assert ended.outcome.instance_seconds == 2 * ended.outcome.jobs[0].seconds


def test_several_jobs_if_one_would_be_too_large(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: Local, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"sagemaker_job_photos": 5, "sagemaker_max_payload_mb": 1})
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
    assert rows(sqlite_records) == rows_of_a_local_worker(settings, tmp_path)


FAULTS: dict[str, Callable[[], Faults]] = {
    "the job failed half way": lambda: Faults(answers=6),
    "the job failed at once": lambda: Faults(answers=0),
    "answers cut short": lambda: Faults(cut_short=frozenset({"bin-images/00001.jpg", "bad/not.png"})),
    "answers missing": lambda: Faults(lost=lambda key: key < "bin-images/00004.jpg"),
    "the job was stopped": lambda: Faults(status="Stopped", lost=lambda key: key > "bin-images/00004.jpg"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_has_no_answer_is_counted_locally(
    nightly: Nightly,
    settings: Settings,
    s3: S3,
    driver: TransformDriver,
    local: Local,
    sqlite_records: Database,
    tmp_path: Path,
    fault: str,
) -> None:
    put_photos(s3)
    driver.faults = FAULTS[fault]()
    run = finish(nightly, nightly.start())
    assert rows(sqlite_records) == rows_of_a_local_worker(settings, tmp_path)
    assert run.outcome.recorded + run.outcome.local == len(rows(sqlite_records)) == 16
    assert len(local.keys) == run.outcome.local > 0
    if "failed" in fault:
        assert "Failed (Algorithm error for" in nightly.summary(run)
    assert left_in(s3, settings) == []


def test_photos_that_change_while_the_job_runs(
    nightly: Nightly, s3: S3, driver: TransformDriver, local: Local, sqlite_records: Database
) -> None:
    """What is recorded is what was counted: the old upload, proven by its MD5, or the new one, counted locally."""
    put_photos(s3, 6)
    etags: dict[str, str] = {}

    def change(key: str) -> None:
        if key == "bin-images/00001.jpg":  # before it is read
            etags[key] = s3.put(key, jpeg(brightness_of(5)))
        if key == "bin-images/00002.jpg":
            s3.client.delete_object(Bucket=s3.bucket, Key=key)
        if key == "bin-images/00005.jpg":  # after it was read, for the job is over by the time that this is seen
            etags["bin-images/00000.jpg"] = s3.client.head_object(Bucket=s3.bucket, Key="bin-images/00000.jpg")["ETag"]

    driver.faults = Faults(before_photo=change)
    driver.may_play.clear()
    run = nightly.start()
    nightly.advance(run)
    driver.may_play.set()
    while nightly.running(run):
        time.sleep(0.02)  # between two looks at the condition
    s3.put("bin-images/00000.jpg", jpeg(brightness_of(6)))
    finish(nightly, run)
    found = {row["key"]: row for row in rows(sqlite_records)}
    assert found["bin-images/00000.jpg"]["predicted"] == 0
    assert found["bin-images/00000.jpg"]["etag"] == etags["bin-images/00000.jpg"].strip('"')
    assert found["bin-images/00001.jpg"]["predicted"] == 5
    assert found["bin-images/00001.jpg"]["etag"] == etags["bin-images/00001.jpg"]
    assert found["bin-images/00002.jpg"]["reason"] == "missing"
    assert sorted(local.keys) == ["bin-images/00001.jpg", "bin-images/00002.jpg"]


def test_an_etag_that_is_no_md5_is_proven_by_the_upload_itself(
    nightly: Nightly,
    settings: Settings,
    s3: S3,
    driver: TransformDriver,
    local: Local,
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
    assert [row] == rows_of_a_local_worker(settings, tmp_path)


def test_only_what_the_model_in_use_has_no_record_of(
    nightly: Nightly,
    settings: Settings,
    s3: S3,
    driver: TransformDriver,
    local: Local,
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


class Killed(BaseException):
    """The process ends here."""


def kill_after(nightly: Nightly, operation: int) -> None:
    """Let the process end once it has done so many things that change something outside of it."""
    left = [operation]

    def wrap(do: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **options: Any) -> Any:
            result = do(*args, **options)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return result

        return done

    for part, names in (
        (nightly._objects, ("put", "put_new", "delete")),
        (nightly.jobs, ("make_model", "start", "delete_model")),
        (nightly._reader._store, ("add_counts",)),
        (nightly._reader, ("_recount",)),
    ):
        for name in names:
            setattr(part, name, wrap(getattr(part, name)))


def test_killed_after_each_step_and_started_again(
    s3: S3,
    driver: TransformDriver,
    brightness_bundle: Path,
    sqlite_records: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same records, one of each, one job, and nothing left behind."""
    monkeypatch.setattr("worker.nightly.run._ABANDONED", timedelta(0))
    lost = "bin-images/00001.jpg"
    driver.faults = Faults(lost=lambda key: key == lost)
    empty = str(sqlite_records.url.database)
    steps = 0
    while True:
        steps += 1
        folder = tmp_path / str(steps)
        folder.mkdir()
        bucket = S3(s3.endpoint_url, f"{s3.bucket}-{steps}", s3.client)
        bucket.client.create_bucket(Bucket=bucket.bucket)
        database = connect(f"sqlite:///{shutil.copy(empty, folder / 'records.db')}")
        settings = settings_for(bucket, str(database.url), brightness_bundle, folder)
        put_photos(bucket, 3)
        bucket.put("odd key.jpg", jpeg(brightness_of(6)))
        driver.jobs.clear()
        killed = run_until_killed(settings, database, steps)
        local = Local(settings)
        again = Nightly(settings, Objects(settings), database, local)
        run = again.start()
        if run is not None:
            finish(again, run)
        local.close()
        assert {row["key"]: (row["predicted"], row["reason"]) for row in rows(database)} == {
            **{f"bin-images/{number:05}.jpg": (number, None) for number in range(3)},
            "bad/cut.jpg": (None, "truncated"),
            "bad/empty.jpg": (None, "empty"),
            "bad/not.png": (None, "not_an_image"),
            "bad/tiff.jpg": (None, "unsupported_format"),
            "odd key.jpg": (6, None),
        }
        assert len(rows(database)) == 8
        assert len(driver.jobs) == 1
        assert (left_in(bucket, settings), models_of(again)) == ([], [])
        last = again.ledger.latest()
        assert (last.number, last.cleaned, last.ended is not None) == (1, True, True)
        database.dispose()
        if not killed:
            break
    assert steps > 15


def run_until_killed(settings: Settings, database: Database, operation: int) -> bool:
    local = Local(settings)
    nightly = Nightly(settings, Objects(settings), database, local)
    kill_after(nightly, operation)
    try:
        finish(nightly, nightly.start())
    except Killed:
        return True
    finally:
        local.close()
    return False


def test_two_runs_at_the_same_moment_are_one(
    nightly: Nightly, settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: Local
) -> None:
    put_photos(s3, 3)
    other = Nightly(settings, Objects(settings), sqlite_records, local)
    claim, others = nightly.ledger.claim, []

    def claim_too_late(run: Run) -> bool:
        others.append(other.start())
        return claim(run)

    nightly.ledger.claim = claim_too_late  # type: ignore[method-assign]
    run = nightly.start()
    assert run == others[0]
    assert {key.split("/")[2] for key in left_in(s3, settings)} == {run.token}
    nightly.advance(run)
    other.advance(run)
    finish(nightly, run)
    assert len(driver.jobs) == 1
    assert other.advance(run).ended is not None  # what the first has removed is not counted again
    assert local.keys == []
    assert len(rows(sqlite_records)) == 7


def test_a_run_that_another_ended_keeps_its_outcome(nightly: Nightly, s3: S3, driver: TransformDriver) -> None:
    put_photos(s3, 3)
    run = nightly.start()
    ended = finish(nightly, run)
    assert nightly._end(run, []) == ended
    assert nightly.ledger.latest() == ended
    assert ended.outcome.recorded == 7


def test_a_look_ends_in_time_and_the_next_goes_on(
    nightly: Nightly, s3: S3, driver: TransformDriver, sqlite_records: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.nightly.reading._CHUNK", 2)
    put_photos(s3, 4)
    run = nightly.start()
    nightly.advance(run)
    while nightly.running(run):
        time.sleep(0.02)  # between two looks at the condition
    for recorded in (2, 4, 6):
        assert nightly.advance(run, within_s=0).ended is None
        assert len(rows(sqlite_records)) == recorded
    assert nightly.advance(run).ended is not None
    assert len(rows(sqlite_records)) == 8


def test_answers_under_other_names_are_no_missing_answers(
    nightly: Nightly, s3: S3, driver: TransformDriver, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_photos(s3, 2)
    monkeypatch.setattr(Folder, "output", lambda folder, part, key: f"{folder.outputs(part)}elsewhere/{key}.out")
    run = nightly.start()
    with pytest.raises(BinwatchError, match=r"SageMaker wrote .* was expected: nothing was recorded"):
        finish(nightly, run)
    assert (local.keys, nightly.ledger.active()) == ([], run)


def test_the_promoted_model_counts(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"model_dir": tmp_path / "none"})
    objects = Objects(settings)
    registry = Registry(objects, settings.bucket, settings.models_prefix)
    registry.publish(write_brightness_bundle(tmp_path / "promoted", "brightness-7"))
    registry.set_current(Current(version="brightness-7", promoted=datetime.now(UTC)))
    put_photos(s3, 2)
    s3.put("odd key.jpg", jpeg(brightness_of(6)))
    local = Local(settings)
    nightly = Nightly(settings, objects, sqlite_records, local)
    run = finish(nightly, nightly.start())
    local.close()
    assert run.sagemaker_model.startswith("binwatch-brightness-7-")
    assert {row["model_version"] for row in rows(sqlite_records)} == {"brightness-7"}
    assert (len(rows(sqlite_records)), driver.requests, local.keys) == (7, 6, ["odd key.jpg"])


def test_files_that_were_deleted_by_hand(nightly: Nightly, s3: S3, driver: TransformDriver) -> None:
    put_photos(s3, 1)
    run = nightly.start()
    for key in left_in(s3, nightly._settings):
        s3.client.delete_object(Bucket=s3.bucket, Key=key)
    with pytest.raises(
        BinwatchError, match=r"run 1: .*plan-0001 is not there.* delete s3://\S+/nightly/runs/00000001,"
    ):
        finish(nightly, run)


def test_answers_of_another_model_are_not_recorded(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: Local, tmp_path: Path
) -> None:
    """The image has a model of its own, say, and serves that."""
    put_photos(s3, 2)
    nightly = Nightly(settings, Objects(settings), sqlite_records, local)
    driver.may_play.clear()
    run = nightly.start()
    nightly.advance(run)
    other = archive(Bundle(write_brightness_bundle(tmp_path / "other", "brightness-9")))
    s3.put(archive_key(settings, run.sagemaker_model), other)
    driver.may_play.set()
    finish(nightly, run)
    assert {row["model_version"] for row in rows(sqlite_records)} == {"brightness-1"}
    assert len(local.keys) == 6


class Refusing:
    """Stands in for boto3's client: one operation is refused as AWS would."""

    def __init__(self, client: Any, operation: str, code: str, message: str) -> None:
        self._client = client
        self._operation = operation
        self._error = ClientError({"Error": {"Code": code, "Message": message}}, operation)

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name == self._operation else getattr(self._client, name)

    def _refuse(self, **_: Any) -> None:
        raise self._error


ROLE_WORDS = "Could not assume role arn:aws:iam::123456789012:role/binwatch"


@pytest.mark.parametrize(
    ("operation", "code", "message", "words"),
    [
        ("create_model", "ValidationException", ROLE_WORDS, "check BINWATCH_SAGEMAKER_ROLE"),
        ("create_model", "AccessDeniedException", "no iam:PassRole", "not allowed: no iam:PassRole"),
        (
            "create_transform_job",
            "ResourceLimitExceeded",
            "0 Instances",
            "a quota of the account is used up: 0 Instances",
        ),
        ("create_transform_job", "ThrottlingException", "Rate exceeded", "refused too many requests"),
        ("describe_transform_job", "ExpiredTokenException", "expired", "credentials are expired or unknown in region"),
    ],
)
def test_what_aws_refuses_is_explained_and_tried_again(
    nightly: Nightly,
    s3: S3,
    driver: TransformDriver,
    sqlite_records: Database,
    operation: str,
    code: str,
    message: str,
    words: str,
) -> None:
    put_photos(s3, 2)
    run = nightly.start()
    client = nightly.jobs._client
    nightly.jobs._client = Refusing(client, operation, code, message)
    with pytest.raises(AwsError, match=words) as refused:
        nightly.advance(run)
    assert run.sagemaker_model in str(refused.value) or run.jobs[0] in str(refused.value)
    assert isinstance(refused.value, QuotaError) == (code == "ResourceLimitExceeded")
    nightly.jobs._client = client
    finish(nightly, run)
    assert len(rows(sqlite_records)) == 6


def test_a_quota_that_another_job_of_the_run_uses_up_is_waited_for(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: Local
) -> None:
    nightly = Nightly(settings.model_copy(update={"sagemaker_job_photos": 4}), Objects(settings), sqlite_records, local)
    put_photos(s3, 4)
    driver.may_play.clear()
    run = nightly.start()
    client = nightly.jobs._client
    start = nightly.jobs.start

    def one_at_a_time(name: str, model: str, **urls: str) -> None:
        if nightly.running(run):
            nightly.jobs._client = Refusing(client, "create_transform_job", "ResourceLimitExceeded", "1 instance")
        try:
            start(name, model, **urls)
        finally:
            nightly.jobs._client = client

    nightly.jobs.start = one_at_a_time  # type: ignore[method-assign]
    assert nightly.advance(run).ended is None
    assert driver.jobs == run.jobs[:1]
    driver.may_play.set()
    finish(nightly, run)
    assert driver.jobs == run.jobs
    assert (len(rows(sqlite_records)), local.keys) == (8, [])


def test_a_job_that_takes_too_long_is_stopped(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: Local
) -> None:
    nightly = Nightly(
        settings.model_copy(update={"sagemaker_job_hours": 1e-9}), Objects(settings), sqlite_records, local
    )
    put_photos(s3, 1)
    driver.may_play.clear()
    stopped: list[str] = []
    nightly.jobs.stop = stopped.append  # type: ignore[method-assign]  # moto cannot stop jobs
    run = nightly.start()
    nightly.advance(run)
    nightly.advance(run)
    assert stopped == run.jobs


def test_nothing_is_started_without_role_and_image(settings: Settings, sqlite_records: Database, local: Local) -> None:
    bare = settings.model_copy(update={"sagemaker_role": None, "sagemaker_image": None})
    with pytest.raises(BinwatchError, match="BINWATCH_SAGEMAKER_ROLE and BINWATCH_SAGEMAKER_IMAGE: not set"):
        Nightly(bare, Objects(bare), sqlite_records, local)


def test_no_credentials(
    settings: Settings, s3: S3, sqlite_records: Database, local: Local, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_photos(s3, 1)
    objects = Objects(settings)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    nightly = Nightly(settings, objects, sqlite_records, local)
    run = nightly.start()
    with pytest.raises(AwsError, match="no AWS credentials"):
        nightly.advance(run)


def test_the_wrong_region(
    settings: Settings, s3: S3, sqlite_records: Database, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("binwatch.aws._TRIES", 1)
    put_photos(s3, 1)
    away = settings.model_copy(update={"sagemaker_endpoint_url": "http://127.0.0.1:9", "region": "mars-north-1"})
    nightly = Nightly(away, Objects(settings), sqlite_records, local)
    with pytest.raises(AwsError, match="cannot be reached in region 'mars-north-1'"):
        nightly.advance(nightly.start())


def test_the_next_estimate_goes_by_what_was_measured(settings: Settings) -> None:
    outcome = Outcome(recorded=7200, local=3, instance_seconds=144.0)
    run = Run(
        number=1,
        token="t",
        started=datetime.now(UTC),
        model="m",
        sagemaker_model="b",
        instance_type=settings.sagemaker_instance_type,
        instance_count=1,
        photos_per_second=20.0,
        parts=(),
        outcome=outcome,
    )
    assert cost.photos_per_second(settings, run) == 50.0
    assert cost.photos_per_second(settings, None) == 20.0
    small = run.model_copy(update={"outcome": outcome.model_copy(update={"recorded": 999})})
    assert cost.photos_per_second(settings, small) == 20.0
    other = run.model_copy(update={"instance_type": "ml.g5.xlarge"})
    assert cost.photos_per_second(settings, other) == 20.0
    words = cost.estimate(settings, sent=180_000, kept=5, rate=50.0)
    assert words == (
        "180000 photos for SageMaker, 5 for local workers; about 1.00 hours of ml.m5.xlarge, 0.23 at 0.23 an hour,"
        " if it counts 50.0 photos/s"
    )


@pytest.mark.parametrize(
    ("key", "size", "sent"),
    [
        ("bin-images/00001.jpg", 0, True),
        ("bin-images/00001.jpg", 6_000_000, True),
        ("bin-images/00001.jpg", 6_000_001, False),
        ("a(1)_!*'.jpg", 1, True),
        ("a b.jpg", 1, False),
        ("ü.jpg", 1, False),
        ("a//b.jpg", 1, False),
        ("/a.jpg", 1, False),
        ("a/../b.jpg", 1, False),
        ("a/..b.jpg", 1, True),
        ("a+b.jpg", 1, False),
        ("a\n.jpg", 1, False),
        (f"{'a' * 900}.jpg", 1, True),
        (f"{'a' * 1000}.jpg", 1, False),
    ],
)
def test_what_sagemaker_is_sent(settings: Settings, key: str, size: int, sent: bool) -> None:
    photo = Listed(key, "e", size, datetime.now(UTC))
    assert can_be_sent(photo, settings, folder_of(settings, "20260101-01234567")) is sent
