"""Celery beat with clock changes and with an unreachable broker."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pydantic import SecretStr

from binwatch.settings import EventSource, Settings, process_environment
from worker.app import make_app
from worker.beat import Scheduler
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.queues import queue_url, sqs_client

ROOT = Path(__file__).parent.parent.parent
WITHIN_S = 60
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
AHEAD = timedelta(days=30)


class RecordingScheduler(Scheduler):
    """Records the started entries and sends nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.names: list[str] = []
        super().__init__(*args, **kwargs)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        self.names.append(entry.name)


class Clock:
    """The clock that beat reads."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        patch.setattr(Celery, "now", lambda _: self.now)

    def tick(self, scheduler: RecordingScheduler, after: timedelta) -> list[str]:
        """Advance the clock by `after` and return the names of the started entries."""
        self.now += after
        scheduler.names.clear()
        while scheduler.tick() == 0:
            pass
        return list(scheduler.names)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def app(settings: Settings, tmp_path: Path) -> Celery:
    """Return an app that reconciles every ten minutes and has a nightly run at two."""
    overrides = {"beat_file": tmp_path / "beat", "nightly_at": "0 2 * * *", "event_source": EventSource.NONE}
    return make_app(settings.model_copy(update=overrides))


def make_scheduler(app: Celery) -> RecordingScheduler:
    """Create the scheduler as beat does at its start."""
    started = RecordingScheduler(app, schedule_filename=app.conf.beat_schedule_filename, Producer=lambda *_, **__: None)
    started.producer = None
    return started


MINUTES = timedelta(minutes=1)
HOURS = timedelta(hours=1)


def test_due_entries_are_started(app: Celery, clock: Clock) -> None:
    beat = make_scheduler(app)
    assert clock.tick(beat, 9 * MINUTES) == []
    assert clock.tick(beat, 2 * MINUTES) == ["reconcile"]
    assert clock.tick(beat, 9 * MINUTES) == []
    assert sorted(clock.tick(beat, 14 * HOURS)) == ["nightly", "reconcile"]
    beat.close()


def test_clock_was_ahead_in_an_earlier_run(app: Celery, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    before = make_scheduler(app)
    assert sorted(clock.tick(before, AHEAD)) == ["nightly", "reconcile"]
    before.close()
    clock.now -= AHEAD
    beat = make_scheduler(app)
    with caplog.at_level(logging.WARNING):
        assert clock.tick(beat, MINUTES) == []
    assert sorted(record.args[0] for record in caplog.records) == ["nightly", "reconcile"]
    assert clock.tick(beat, 11 * MINUTES) == ["reconcile"]
    assert sorted(clock.tick(beat, 14 * HOURS)) == ["nightly", "reconcile"]
    beat.close()


def test_clock_is_set_back_while_beat_runs(app: Celery, clock: Clock) -> None:
    clock.now += AHEAD
    beat = make_scheduler(app)
    assert clock.tick(beat, 11 * MINUTES) == ["reconcile"]
    assert clock.tick(beat, -AHEAD) == []
    assert clock.tick(beat, 11 * MINUTES) == ["reconcile"]
    assert sorted(clock.tick(beat, 14 * HOURS)) == ["nightly", "reconcile"]
    beat.close()


def test_small_clock_correction_changes_nothing(app: Celery, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    beat = make_scheduler(app)
    assert clock.tick(beat, 11 * MINUTES) == ["reconcile"]
    assert clock.tick(beat, timedelta(seconds=-2)) == []
    assert caplog.records == []
    assert clock.tick(beat, 11 * MINUTES) == ["reconcile"]
    beat.close()


def test_command_sends_task_although_schedule_file_is_ahead(settings: Settings, clock: Clock, tmp_path: Path) -> None:
    overrides = {"beat_file": tmp_path / "beat", "reconcile_minutes": 0.01, "event_source": EventSource.NONE}
    settings = settings.model_copy(update=overrides)
    client = sqs_client(settings)
    choose_queues(settings).create()
    app = make_app(settings)
    clock.now = datetime.now(UTC) + AHEAD
    before = make_scheduler(app)
    clock.tick(before, MINUTES)
    before.close()
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    beat = subprocess.Popen(
        [sys.executable, "-m", "worker", "beat"], cwd=ROOT, env=process_environment(settings) | credentials
    )
    try:
        url, name = queue_url(client, settings.task_queue), "ApproximateNumberOfMessages"
        deadline = time.monotonic() + WITHIN_S
        while client.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name] == "0":
            assert beat.poll() is None
            assert time.monotonic() < deadline, f"no task within {WITHIN_S} s"
            time.sleep(0.05)  # polling interval
    finally:
        beat.terminate()
        beat.wait(WITHIN_S)


@pytest.fixture
def without_broker(settings: Settings, closed_url: str, tmp_path: Path) -> Settings:
    """Return settings with an unreachable broker and a password."""
    url = SecretStr(closed_url.replace("http://", "amqp://beat:a-secret@") + "//")
    overrides = {
        "broker_url": url,
        "beat_file": tmp_path / "beat",
        "event_source": EventSource.NONE,
        "reconcile_minutes": 0.001,
    }
    return settings.model_copy(update=overrides)


def masked_url(settings: Settings) -> str:
    return settings.broker_url.get_secret_value().replace("a-secret", "**")


def test_unsent_task_is_one_log_line_naming_the_broker(
    without_broker: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(without_broker)
    beat = Scheduler(app, schedule_filename=app.conf.beat_schedule_filename)
    with caplog.at_level(logging.WARNING):
        beat.apply_entry(beat.schedule["reconcile"])
    (record,) = caplog.records
    assert record.getMessage() == (
        f"beat: reconcile could not be sent to {masked_url(without_broker)} (OperationalError: [Errno 111] Connection"
        " refused); if this lasts, check BINWATCH_BROKER_URL and the broker. It is sent again when it is next due"
    )
    assert not record.exc_info
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        beat.apply_entry(beat.schedule["reconcile"])
    assert any(record.exc_info for record in caplog.records), "the traceback is logged at DEBUG"
    beat.close()


def test_command_names_the_broker_that_it_waits_for(without_broker: Settings) -> None:
    beat = subprocess.Popen(
        [sys.executable, "-m", "worker", "beat"],
        cwd=ROOT,
        env=process_environment(without_broker),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert beat.stderr
        at_start, start, *lines = [next(beat.stderr) for _ in range(4)]
    finally:
        beat.terminate()
        beat.communicate(timeout=WITHIN_S)
    url = masked_url(without_broker)
    assert f"beat: RabbitMQ at {url} cannot be reached" in at_start
    assert start.endswith("celery.beat: beat: Starting...\n")
    for line, wait_s in zip(lines, (2, 4), strict=True):
        assert line.endswith(
            f"ERROR worker.beat: beat: cannot connect to {url} (ConnectionRefusedError: [Errno 111]"
            f" Connection refused); check BINWATCH_BROKER_URL and the broker. Trying again in {wait_s} s\n"
        )
