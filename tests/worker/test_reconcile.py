"""Objects without a record are found and counted, regardless of their events. With RabbitMQ and a real worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine as Database
from sqlalchemy import select

from binwatch.bundle import Calibration
from binwatch.errors import BinwatchError
from binwatch.events import ObjectCreated
from binwatch.objects import Objects
from binwatch.records.store import Store
from binwatch.records.tables import Bin, Comparison, Count, CurrentComparison, Expectation
from binwatch.settings import EventSource, Settings, process_environment
from testing.services.rabbitmq import RabbitMQ
from tests.calibrations import category
from worker.__main__ import cli
from worker.app import make_app
from worker.backfill import BackfillProgress, backfill
from worker.counting import Counting
from worker.publisher import Publisher
from worker.reconcile import GracePeriod, UnrecordedPage, unrecorded_pages
from worker.tasks import Reconcile

ROOT = Path(__file__).parent.parent.parent
PHOTO = (ROOT / "samples" / "bin-images" / "00184.jpg").read_bytes()


@pytest.fixture
def counting(settings: Settings) -> Iterator[Counting]:
    counting = Counting(settings)
    yield counting
    counting.close()


def find_unrecorded(counting: Counting, settings: Settings, **options: object) -> list[UnrecordedPage]:
    return list(unrecorded_pages(counting.objects, counting.database, settings, bucket=settings.bucket, **options))


def process_all(counting: Counting, bucket: str) -> None:
    """Count the photo and read the metadata file."""
    counting.count([ObjectCreated(bucket, "a.jpg")])
    counting.read_metadata([ObjectCreated(bucket, "a.json")])


def keys(pages: list[UnrecordedPage]) -> list[str]:
    return [item.key for page in pages for item in (*page.photos, *page.metadata)]


def test_only_unrecorded_objects_are_found(counting, settings, s3):
    for key in ("bin-images/a.jpg", "bin-images/b.jpg", "bin-images/empty.jpg"):
        s3.put(key, b"" if "empty" in key else PHOTO)
    for key in ("metadata/a.json", "metadata/b.json"):
        s3.put(key, b'{"EXPECTED_QUANTITY": 2}')
    s3.put("models/current.txt", b"x")
    s3.put("notes.txt", b"x")
    counting.count([ObjectCreated(s3.bucket, "bin-images/a.jpg"), ObjectCreated(s3.bucket, "bin-images/empty.jpg")])
    counting.read_metadata([ObjectCreated(s3.bucket, "metadata/b.json")])
    pages = find_unrecorded(counting, settings)
    assert keys(pages) == ["bin-images/b.jpg", "metadata/a.json"]
    assert sum(page.listed for page in pages) == 5


def test_overwritten_photo_is_found_again(counting, settings, s3):
    s3.put("a.jpg", PHOTO)
    counting.count([ObjectCreated(s3.bucket, "a.jpg")])
    assert keys(find_unrecorded(counting, settings)) == []
    s3.put("a.jpg", PHOTO + b"\0")
    assert keys(find_unrecorded(counting, settings)) == ["a.jpg"]


def test_restored_earlier_content_is_found(counting, settings, s3, monkeypatch):
    """Uploads of A, B and A again, the last without an event: by its ETag alone it would look recorded."""
    now = datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=5)
    for minute, suffix in enumerate((b"", b"0", b"")):
        monkeypatch.setattr("moto.s3.models.utcnow", lambda minute=minute: now + timedelta(minutes=minute))
        s3.put("a.jpg", PHOTO + suffix)
        s3.put("a.json", b'{"EXPECTED_QUANTITY": 2%s}' % suffix)
        if minute < 2:
            process_all(counting, s3.bucket)
    assert keys(find_unrecorded(counting, settings)) == ["a.jpg", "a.json"]
    process_all(counting, s3.bucket)
    assert keys(find_unrecorded(counting, settings)) == []
    with counting.database.connect() as connection:
        latest = select(Count.bytes, Expectation.quantity).select_from(Bin).join(Count).join(Expectation)
        assert connection.execute(latest).all() == [(len(PHOTO), 2)]


def test_young_photo_is_left_to_its_event_message(counting, settings, s3):
    s3.put("a.jpg", PHOTO)
    s3.put("notes.txt", b"x")
    grace = GracePeriod(3600)
    assert keys(find_unrecorded(counting, settings, grace=grace)) == []
    assert grace.young == 1
    assert keys(find_unrecorded(counting, settings, grace=GracePeriod(0))) == ["a.jpg"]


def test_listing_spans_pages(counting, settings, s3):
    for n in range(1003):
        s3.put(f"metadata/{n:04}.json", b'{"EXPECTED_QUANTITY": 1}')
    counting.read_metadata([ObjectCreated(s3.bucket, f"metadata/{n:04}.json") for n in range(500)])
    pages = find_unrecorded(counting, settings)
    assert [page.listed for page in pages] == [1000, 3]
    assert keys(pages) == [f"metadata/{n:04}.json" for n in range(500, 1003)]


class Recorder:
    """Replaces Publisher and records what reconcile sends."""

    def __init__(self, backlog: int = 0) -> None:
        self.sent: list[str] = []
        self._backlog = backlog

    def backlog(self) -> int:
        return self._backlog

    def count(self, photos: Sequence[ObjectCreated]) -> None:
        self.sent += [photo.key for photo in photos]

    read_metadata = count


def test_reconcile_sends_nothing_during_a_backlog_or_an_outage(counting, settings, s3, monkeypatch):
    """With a broken model, photos wait for retries, which brokers do not count."""

    def infer(photos):
        raise RuntimeError("the GPU is lost")

    settings = settings.model_copy(update={"reconcile_grace_s": 0.0})
    s3.put("a.jpg", PHOTO)
    calm, busy = Recorder(), Recorder(backlog=51)

    def last(step: str) -> float | None:
        name = "binwatch_worker_periodic_task_timestamp_seconds"
        return counting.metrics.registry.get_sample_value(name, {"task": "binwatch.reconcile", "step": step})

    with monkeypatch.context() as patch:
        patch.setattr(counting.models.engine, "infer", infer)
        Reconcile(counting, calm, settings).run()
    assert last("success") is None
    assert time.time() - 600 < last("start") <= time.time()
    Reconcile(counting, busy, settings).run()
    assert last("success") is not None, "it can wait"
    assert (busy.sent, calm.sent) == ([], [])
    before = last("success")
    Reconcile(counting, calm, settings).run()
    assert calm.sent == ["a.jpg"]
    assert last("success") > before


def test_reconcile_updates_p_values(counting, settings, s3, caplog):
    """For bins compared before their model's calibration was recorded, and after each later calibration."""
    caplog.set_level("INFO", "worker.tasks")
    s3.put("a.jpg", PHOTO)
    s3.put("a.json", b'{"EXPECTED_QUANTITY": 1}')
    counting.count([ObjectCreated(s3.bucket, "a.jpg")])
    counting.read_metadata([ObjectCreated(s3.bucket, "a.json")])
    version = counting.models.engine.card.version
    with counting.database.connect() as connection:
        assert connection.execute(select(CurrentComparison.p_value)).scalars().all() == [None]
    for scores, p_value in (((1.0,), 1.0), ((1.0, 0.0), 2 / 3), ((1.0, 1.0, 0.0), 0.75)):
        calibration = Calibration(photos=len(scores), split="test", categories=(category(tuple(sorted(scores))),))
        Store(counting.database).use_model(version, calibration)
        for _ in range(2):
            Reconcile(counting, Recorder(), settings).run()
        with counting.database.connect() as connection:
            row = connection.execute(select(CurrentComparison.p_value, CurrentComparison.p_missing)).one()
        assert tuple(row) == (p_value, 1.0)
    judged = [record.message for record in caplog.records if "calibration" in record.message]
    assert judged == ["reconcile: new p-values for 1 bin, by the present calibration"] * 3


def test_reconcile_reports_missing_event_messages(counting, settings, s3, caplog):
    caplog.set_level("INFO", "worker.tasks")
    settings = settings.model_copy(update={"reconcile_grace_s": 0.0})
    s3.put("a.jpg", PHOTO)
    task = Reconcile(counting, Recorder(), settings)
    task.run()
    counting.metrics.count_event_messages(published=0, rejected=1)
    task.run()
    task.run()
    without = settings.model_copy(update={"event_source": EventSource.NONE})
    Reconcile(counting, Recorder(), without).run()
    lines = [record.message for record in caplog.records if record.message.startswith("reconcile: sent 1 ")]
    assert ["if the bucket should send its events" in line for line in lines] == [True, False, True, False]


@pytest.fixture
def rabbit_settings(settings: Settings, rabbitmq: RabbitMQ) -> Settings:
    name = uuid.uuid4().hex[:12]
    return settings.model_copy(
        update={
            "event_source": EventSource.RABBITMQ,
            "broker_url": SecretStr(rabbitmq.url),
            "event_queue": f"events-{name}",
            "event_dead_letter_queue": f"events-{name}-dead",
            "task_queue": f"tasks-{name}",
            "reconcile_grace_s": 0.0,
        }
    )


@pytest.fixture
def worker(rabbit_settings: Settings, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real worker process on RabbitMQ."""
    environment = process_environment(rabbit_settings) | {
        name: value for name, value in os.environ.items() if name.startswith("AWS_")
    }
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "run"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, (tmp_path / "worker.log").read_text()


def run_backfill(settings: Settings, database: Database, patience_s: float = 60, prefix: str = "") -> BackfillProgress:
    return backfill(
        Objects(settings),
        database,
        settings,
        Publisher(make_app(settings), settings.group_photos),
        bucket=settings.bucket,
        prefix=prefix,
        patience_s=patience_s,
        show=lambda _: None,
    )


def test_backfill_counts_existing_objects(rabbit_settings, worker, sqlite_records, s3):
    for n in range(30):
        s3.put(f"bin-images/{n}.jpg", PHOTO)
        s3.put(f"metadata/{n}.json", b'{"EXPECTED_QUANTITY": 2}')
    first = run_backfill(rabbit_settings, sqlite_records, prefix="bin-images/")
    assert (first.listed, first.recorded_before, first.recorded) == (30, 0, 30)
    second = run_backfill(rabbit_settings, sqlite_records)
    assert (second.listed, second.recorded_before, second.recorded) == (60, 30, 30)
    with sqlite_records.connect() as connection:
        assert len(connection.execute(select(Count.id)).all()) == 30
        assert len(connection.execute(select(Expectation.id)).all()) == 30
        assert len(connection.execute(select(Comparison.id)).all()) == 30


def test_backfill_without_a_worker_names_a_photo(rabbit_settings, sqlite_records, s3, rabbitmq):
    s3.put("bin-images/a.jpg", PHOTO)
    with pytest.raises(BinwatchError, match=r"'bin-images/a\.jpg': is a worker running\?"):
        run_backfill(rabbit_settings, sqlite_records, patience_s=0.2)


def test_reconcile_command_sends_objects_to_a_worker(rabbit_settings, worker, sqlite_records, s3):
    for n in range(10):
        s3.put(f"bin-images/{n}.jpg", PHOTO)
    environment = process_environment(rabbit_settings) | {
        name: value for name, value in os.environ.items() if name.startswith("AWS_")
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker", "reconcile"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^sent 10 photos and metadata files without a record$", done.stdout, re.MULTILINE)
    wait = threading.Event()
    for _ in range(600):
        with sqlite_records.connect() as connection:
            if len(connection.execute(select(Count.id)).all()) == 10:
                return
        wait.wait(0.1)
    raise AssertionError("the worker did not count what reconcile sent")


def test_backfill_command_defaults_to_the_whole_bucket(rabbit_settings, s3, monkeypatch, capsys):
    for name, value in process_environment(rabbit_settings).items():
        if name.startswith("BINWATCH_"):
            monkeypatch.setenv(name, value)
    cli(["backfill"], standalone_mode=False)
    assert capsys.readouterr().out == f"s3://{s3.bucket}/: 0 photos and metadata files: 0 recorded now, 0 before\n"
    with pytest.raises(
        BinwatchError, match=r"bin-images/: not of the form .*; leave it out for all of BINWATCH_BUCKET"
    ):
        cli(["backfill", "bin-images/"], standalone_mode=False)
