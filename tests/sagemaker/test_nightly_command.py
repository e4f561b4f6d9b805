"""Tests of `python -m worker nightly`, and of the tasks that beat starts."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from celery.exceptions import Retry
from celery.schedules import BaseSchedule
from sqlalchemy import Engine as Database

from binwatch.errors import SettingsError
from binwatch.events import ObjectCreated
from binwatch.records.engine import connect
from binwatch.records.queries import recorded_keys
from binwatch.settings import NightlyBackend, Settings, load_settings, process_environment
from testing.brightness import brightness_of, jpeg, write_brightness_bundle
from testing.services.s3 import S3
from testing.transform_driver import TransformDriver
from tests.sagemaker.nights import on_sagemaker, put_photos, rows, rows_of_local_worker
from worker.app import _expect_periodic_tasks, make_app
from worker.backfill import BackfillProgress, backfill
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.queues import queue_url, sqs_client
from worker.counting import Counting
from worker.metrics import PeriodicStep, WorkerMetrics
from worker.nightly.tasks import NIGHTLY, PollNightly, StartNightly
from worker.sagemaker.nightly.run_store import RunStore
from worker.tasks import RECONCILE

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60


def start_nightly(settings: Settings, *options: str) -> subprocess.Popen[str]:
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return subprocess.Popen(
        [sys.executable, "-m", "worker", "nightly", *options],
        cwd=ROOT,
        env=process_environment(settings) | credentials,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s"
        time.sleep(0.02)  # polling interval


def test_interrupted_command_is_continued(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, tmp_path: Path
) -> None:
    put_photos(s3, 5)
    dry_run = start_nightly(settings, "--backend", "sagemaker", "--dry-run")
    assert dry_run.communicate(timeout=TIMEOUT_S)[0].splitlines() == [
        "9 photos to count by brightness-1; nothing was started",
        "9 photos for SageMaker, 0 for local workers; about 0 s of ml.m5.xlarge, 0.00 at 0.23 an hour,"
        " if it counts 20.0 photos/s",
    ]
    assert driver.jobs == []
    driver.may_run_jobs.clear()
    first = start_nightly(settings, "--backend", "sagemaker")
    wait_until(lambda: len(driver.jobs) == 1 or first.poll() is not None)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=TIMEOUT_S)
    assert first.returncode != 0
    assert f"transform job {driver.jobs[0]} may still run and cost money" in errors
    assert f"stop-transform-job --transform-job-name {driver.jobs[0]}" in errors
    driver.may_run_jobs.set()
    second = start_nightly(settings, "--backend", "sagemaker")
    printed, errors = second.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 0, errors
    assert "has not ended: continuing it" in printed
    assert errors == ""
    cost = r"cost: \d+ s of ml\.m5\.xlarge, \d\.\d\d at 0\.23 an hour$"
    assert re.search(rf"^run 1: 9 photos recorded \(4 failed\), 0 by local workers; {cost}", printed, re.MULTILINE)
    assert printed.splitlines()[-1] == (
        "nothing to count: the model in use has a record of every photo;"
        " those stored in the last 0 s are left to their events"
    )
    assert len(driver.jobs) == 1
    assert rows(sqlite_records) == rows_of_local_worker(settings, tmp_path)


def test_missing_settings_are_named(settings: Settings) -> None:
    process = start_nightly(on_sagemaker(settings, role=None), "--backend", "sagemaker")
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == (
        "error: the backend sagemaker needs more settings: BINWATCH_SAGEMAKER_ROLE is not set (ARN of the role that"
        " transform jobs assume): for example"
        " BINWATCH_SAGEMAKER_ROLE=arn:aws:iam::123456789012:role/binwatch-transform (docs/sagemaker.md)"
    )
    assert "Traceback" not in errors


class FakePublisher:
    """A Publisher that remembers the keys sent to workers."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def count(self, photos: Sequence[ObjectCreated]) -> None:
        self.keys += [photo.key for photo in photos]

    def read_metadata(self, files: Sequence[ObjectCreated]) -> None:
        assert not files


@pytest.fixture
def counting(settings: Settings) -> Iterator[Counting]:
    counting = Counting(settings)
    yield counting
    counting.close()


def test_beat_starts_and_polls_run_without_waiting(
    settings: Settings, counting: Counting, s3: S3, driver: TransformDriver, sqlite_records: Database, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"nightly_backend": NightlyBackend.SAGEMAKER})
    put_photos(s3, 4)
    s3.put("odd key.jpg", jpeg(brightness_of(6)))
    sent = FakePublisher()
    start, poll = StartNightly(counting, sent, settings), PollNightly(counting, sent, settings)
    runs = RunStore(counting.objects, settings)
    poll.run()  # there is no run
    driver.may_run_jobs.clear()
    start.run()
    start.run()  # delivered twice
    assert len(driver.jobs) == 1
    assert sent.keys == ["odd key.jpg"]
    poll.run()
    assert rows(sqlite_records) == []
    timestamp = partial(counting.metrics.registry.get_sample_value, "binwatch_worker_periodic_task_timestamp_seconds")
    assert timestamp({"task": NIGHTLY, "step": "success"}) is None
    driver.may_run_jobs.set()

    def ended() -> bool:
        poll.run()
        return runs.active() is None

    wait_until(ended)
    assert timestamp({"task": NIGHTLY, "step": "success"}) > timestamp({"task": NIGHTLY, "step": "start"})
    assert len(rows(sqlite_records)) == 8
    counting.count([ObjectCreated(s3.bucket, key) for key in sent.keys])
    assert [row["key"] for row in rows(sqlite_records)][-1] == "odd key.jpg"
    metrics = counting.metrics.registry
    assert metrics.get_sample_value("binwatch_worker_photos_total", {"outcome": "counted", "reason": ""}) == 5
    assert metrics.get_sample_value("binwatch_worker_nightly_failures_total") == 0
    billed = runs.latest().outcome.instance_seconds
    assert metrics.get_sample_value("binwatch_worker_nightly_instance_seconds_total") == billed > 0


def test_failed_start_is_retried_and_blocked_job_is_named(
    settings: Settings,
    counting: Counting,
    s3: S3,
    driver: TransformDriver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings.model_copy(update={"nightly_backend": NightlyBackend.SAGEMAKER})
    app = make_app(settings)
    task = app.register_task(StartNightly(counting, FakePublisher(), on_sagemaker(settings, role=None)))
    monkeypatch.setattr(type(task), "apply_async", lambda *_, **__: None)
    task.push_request(id="an-id", retries=0, args=[], kwargs={}, called_directly=False, is_eager=False)
    with pytest.raises(Retry, match="BINWATCH_SAGEMAKER_ROLE is not set"):
        task.run()
    monkeypatch.setattr("binwatch.sagemaker.requests._MAX_ATTEMPTS", 1)
    put_photos(s3, 1)
    unreachable = on_sagemaker(settings, endpoint_url="http://127.0.0.1:9")
    with caplog.at_level(logging.ERROR):
        StartNightly(counting, FakePublisher(), unreachable).run()
    run = RunStore(counting.objects, settings).active()
    assert run.jobs[0] in caplog.text
    assert "AWS cannot be reached" in caplog.text
    assert counting.metrics.registry.get_sample_value("binwatch_worker_nightly_failures_total") == 2
    PollNightly(counting, FakePublisher(), settings).run()  # the outage is over
    assert driver.jobs == run.jobs


def test_local_backend_sends_photos_without_record_to_workers(
    settings: Settings, counting: Counting, s3: S3, tmp_path: Path
) -> None:
    put_photos(s3, 3)
    s3.put("bin-images/00001.json", b'{"EXPECTED_QUANTITY": 1}')
    counting.count([ObjectCreated(s3.bucket, "bin-images/00001.jpg"), ObjectCreated(s3.bucket, "bad/not.png")])
    sent = FakePublisher()
    StartNightly(counting, sent, settings).run()
    assert sorted(sent.keys) == [
        "bad/avif.jpg",
        "bad/cut.jpg",
        "bad/empty.jpg",
        "bin-images/00000.jpg",
        "bin-images/00002.jpg",
    ]
    newer = settings.model_copy(update={"model_dir": write_brightness_bundle(tmp_path / "newer", "brightness-2")})
    recount = FakePublisher()
    StartNightly(counting, recount, newer).run()
    assert len(recount.keys) == 7


def test_run_survives_database_outage(
    settings: Settings, counting: Counting, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_photos(s3, 1)
    task = make_app(settings).register_task(StartNightly(counting, FakePublisher(), settings))
    monkeypatch.setattr(type(task), "apply_async", lambda *_, **__: None)
    monkeypatch.setattr(counting, "database", connect("postgresql://binwatch@127.0.0.1:9/records"))
    task.push_request(id="an-id", retries=0, args=[], kwargs={}, called_directly=False, is_eager=False)
    with pytest.raises(Retry, match="connection to server at"):
        task.run()
    assert counting.metrics.registry.get_sample_value("binwatch_worker_nightly_failures_total") == 1


class CountingPublisher(FakePublisher):
    """A Publisher whose photos are counted at once."""

    def __init__(self, counting: Counting) -> None:
        super().__init__()
        self._counting = counting

    def count(self, photos: Sequence[ObjectCreated]) -> None:
        super().count(photos)
        self._counting.count(photos)


def test_local_command_follows_records_of_its_model(
    settings: Settings, counting: Counting, s3: S3, sqlite_records: Database, tmp_path: Path
) -> None:
    put_photos(s3, 3)
    counting.count([ObjectCreated(s3.bucket, f"bin-images/{number:05}.jpg") for number in range(3)])
    bundle = write_brightness_bundle(tmp_path / "newer", "brightness-2")
    newer = Counting(settings.model_copy(update={"model_dir": bundle}))
    workers = CountingPublisher(newer)

    def follow(model: str | None) -> BackfillProgress:
        options = {"bucket": s3.bucket, "prefix": "bin-images/", "patience_s": 5.0, "show": lambda _: None}
        return backfill(counting.objects, sqlite_records, settings, workers, **options, model=model)

    assert follow(None) == BackfillProgress(listed=3, recorded_before=3, recorded=0)
    assert follow("brightness-2") == BackfillProgress(listed=3, recorded_before=0, recorded=3)
    assert follow("brightness-2") == BackfillProgress(listed=3, recorded_before=3, recorded=0)
    assert workers.keys == [f"bin-images/{number:05}.jpg" for number in range(3)]
    assert [row["model_version"] for row in rows(sqlite_records)] == ["brightness-1", "brightness-2"] * 3
    newer.close()


def test_failed_photos_are_reported_separately(
    settings: Settings, counting: Counting, s3: S3, sqlite_records: Database
) -> None:
    put_photos(s3, 2)
    s3.put("bin-images/empty.jpg", b"")
    s3.put("metadata/bad.json", b"{")
    options = {"bucket": s3.bucket, "patience_s": 5.0, "show": lambda _: None}
    workers = CountingPublisher(counting)
    progress = backfill(counting.objects, sqlite_records, settings, workers, prefix="bin-images/", **options)
    assert progress == BackfillProgress(listed=3, recorded_before=0, recorded=3, failed=1)
    assert progress.failed_suffix() == ", of which 1 failed"
    counting.read_metadata([ObjectCreated(s3.bucket, "metadata/bad.json")])
    with sqlite_records.connect() as connection:
        keys = [
            ObjectCreated(s3.bucket, key)
            for key in ("bin-images/00000.jpg", "bin-images/empty.jpg", "metadata/bad.json")
        ]
        assert recorded_keys(connection, s3.bucket, keys) == {
            "bin-images/00000.jpg": True,
            "bin-images/empty.jpg": False,
            "metadata/bad.json": False,
        }
    assert BackfillProgress(recorded=3).failed_suffix() == ""


def test_local_recount_of_all_photos(settings: Settings, counting: Counting, s3: S3) -> None:
    settings = settings.model_copy(update={"task_queue": f"tasks-{s3.bucket}", "event_queue": f"events-{s3.bucket}"})
    client = sqs_client(settings)
    choose_queues(settings).create()
    put_photos(s3, 3)
    counting.count([ObjectCreated(s3.bucket, f"bin-images/{number:05}.jpg") for number in range(3)])
    process = start_nightly(settings, "--backend", "local", "--again", "--prefix", "bin-images/")
    printed, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, printed) == (0, "sent 3 photos to the workers\n"), errors
    url = queue_url(client, settings.task_queue)
    response = client.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    assert response["Attributes"]["ApproximateNumberOfMessages"] == "1"


@pytest.mark.parametrize("grace_s", [0, 3600])
def test_dry_run_matches_run_for_any_grace_period(settings: Settings, s3: S3, grace_s: int) -> None:
    """However a run is started, it leaves photos within the grace period to their events, and says so."""
    settings = settings.model_copy(
        update={
            "task_queue": f"tasks-{s3.bucket}",
            "event_queue": f"events-{s3.bucket}",
            "reconcile_grace_s": float(grace_s),
            "nightly_backend": NightlyBackend.LOCAL,
        }
    )
    choose_queues(settings).create()
    for number in range(3):
        s3.put(f"bin-images/{number:05}.jpg", jpeg(brightness_of(number)))
    if not grace_s:  # count the photos first, so that the command need not wait for workers
        counting = Counting(settings)
        counting.count([ObjectCreated(s3.bucket, f"bin-images/{number:05}.jpg") for number in range(3)])
        counting.close()
    left = ["3 more photos were stored in the last 3600 s and are left to their events (BINWATCH_RECONCILE_GRACE_S)"]
    expected = {
        ("--dry-run",): "0 photos to count by brightness-1; nothing was started",
        ("--dry-run", "--again"): f"{0 if grace_s else 3} photos to count by brightness-1; nothing was started",
        (): "0 photos: 0 counted now by brightness-1, 0 before"
        if grace_s
        else "3 photos: 0 counted now by brightness-1, 3 before",
        ("--again",): f"sent {0 if grace_s else 3} photos to the workers",
    }
    for options, first_line in expected.items():
        process = start_nightly(settings, *options)
        printed, errors = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, errors
        lines = [line for line in printed.splitlines() if "recorded" not in line]  # without the progress bar
        assert lines == [first_line, *(left if grace_s else [])]


def test_overdue_periodic_tasks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is overdue three intervals after its last run, or half a day after its due time.

    A new worker counts from its own start.
    """
    moment = datetime(2026, 11, 6, 2, 31, tzinfo=UTC)  # a Friday
    monkeypatch.setattr(BaseSchedule, "now", lambda _: moment)
    metrics = WorkerMetrics()
    _expect_periodic_tasks(
        metrics, settings.model_copy(update={"nightly_at": "30 2 * * 1-5", "reconcile_minutes": 10.0})
    )

    def deadline(task: str, step: str = "success") -> datetime:
        name = "binwatch_worker_periodic_task_deadline_timestamp_seconds"
        timestamp = metrics.registry.get_sample_value(name, {"task": task, "step": step})
        return datetime.fromtimestamp(timestamp, UTC)

    assert deadline(RECONCILE) == deadline(RECONCILE, "start") == moment + timedelta(minutes=30)
    assert deadline(NIGHTLY) == datetime(2026, 11, 9, 14, 30, tzinfo=UTC)
    moment += timedelta(minutes=15)
    metrics.note_periodic_step(RECONCILE, PeriodicStep.START)
    assert deadline(RECONCILE, "start") == moment + timedelta(minutes=30) > deadline(RECONCILE)


def test_schedule(settings: Settings) -> None:
    assert set(make_app(settings).conf.beat_schedule) == {"reconcile"}
    nightly = settings.model_copy(update={"nightly_at": "30 2 * * 1-5"})
    assert set(make_app(nightly).conf.beat_schedule) == {"reconcile", "nightly"}
    schedule = make_app(nightly).conf.beat_schedule["nightly"]["schedule"]
    assert (schedule.minute, schedule.hour, schedule.day_of_week) == ({30}, {2}, {1, 2, 3, 4, 5})
    with_polls = nightly.model_copy(update={"nightly_backend": NightlyBackend.SAGEMAKER, "nightly_poll_s": 45.0})
    assert make_app(with_polls).conf.beat_schedule["nightly-poll"]["schedule"] == 45.0
    with pytest.raises(SettingsError, match="BINWATCH_NIGHTLY_AT: 'a b c d e' is not a crontab"):
        make_app(settings.model_copy(update={"nightly_at": "a b c d e"}))


def test_settings_beyond_sagemaker_limits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_SAGEMAKER_CONCURRENT_TRANSFORMS", "17")
    with pytest.raises(SettingsError, match="is over 100, SageMaker's limit"):
        load_settings()
    monkeypatch.setenv("BINWATCH_NIGHTLY_AT", "at two")
    with pytest.raises(SettingsError, match="BINWATCH_NIGHTLY_AT: "):
        load_settings()
