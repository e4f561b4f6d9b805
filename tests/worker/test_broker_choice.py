"""The settings choose between SQS and RabbitMQ; no other part of a worker distinguishes them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib.metadata import version

import pytest
from celery.contrib.testing.worker import start_worker
from pydantic import SecretStr
from sqlalchemy import Engine as Database
from sqlalchemy import select

from binwatch.errors import SettingsError
from binwatch.records.tables import Count
from binwatch.settings import EventSource, Settings
from testing.brightness import brightness_of, jpeg
from testing.services.s3 import S3
from tests.faults.stack import announcement
from tests.worker.stub_broker import StubEventQueue, StubTaskQueue
from worker.app import make_app, make_worker
from worker.brokers.choice import Queues, choose_queues
from worker.brokers.internals import TESTED_VERSIONS
from worker.brokers.rabbitmq.events import RabbitEventQueue
from worker.brokers.rabbitmq.tasks import RabbitTaskQueue
from worker.brokers.sqs.events import SqsEventQueue
from worker.brokers.sqs.tasks import SqsTaskQueue
from worker.publisher import Publisher

RABBITMQ = "amqp://guest:guest@127.0.0.1//"


@pytest.mark.parametrize(
    ("broker", "source", "tasks", "events"),
    [
        ("sqs://", EventSource.SQS, SqsTaskQueue, SqsEventQueue),
        ("sqs://", EventSource.NONE, SqsTaskQueue, type(None)),
        (RABBITMQ, EventSource.SQS, RabbitTaskQueue, SqsEventQueue),
        (RABBITMQ, EventSource.RABBITMQ, RabbitTaskQueue, RabbitEventQueue),
    ],
)
def test_settings_choose_the_broker(broker: str, source: EventSource, tasks: type, events: type) -> None:
    queues = choose_queues(Settings(broker_url=SecretStr(broker), event_source=source))
    assert (type(queues.tasks), type(queues.events)) == (tasks, events)


def test_events_on_a_separate_rabbitmq() -> None:
    settings = Settings(event_source=EventSource.RABBITMQ)
    with pytest.raises(SettingsError, match="needs BINWATCH_EVENT_BROKER_URL"):
        choose_queues(settings)
    queues = choose_queues(settings.model_copy(update={"event_broker_url": SecretStr(RABBITMQ)}))
    assert (type(queues.tasks), type(queues.events)) == (SqsTaskQueue, RabbitEventQueue)


def test_private_names_are_tested_with_installed_versions() -> None:
    """After an update, check worker/brokers/internals.py against the new version, run all tests, and list it there."""
    assert {name: version(name) for name in TESTED_VERSIONS} == TESTED_VERSIONS


@pytest.mark.filterwarnings("ignore:You're running the worker with superuser privileges")
def test_worker_on_a_third_broker(settings: Settings, s3: S3, sqlite_records: Database) -> None:
    tasks, events = StubTaskQueue(settings.task_queue), StubEventQueue()
    app = make_app(settings, Queues(tasks, events))
    level, handlers = logging.root.level, logging.root.handlers[:]
    make_worker(app, settings)
    etag = s3.put("00001.jpg", jpeg(brightness_of(3)))
    events.send(announcement(s3.bucket, "00001.jpg", etag))
    events.send("no event")
    app.send_task("binwatch.no_such_task")
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False) as worker:
        wait_until(lambda: bool(tasks.dead_letters().messages()) and not events.in_flight and not tasks.depths()[0])
        wait_until(lambda: recorded(sqlite_records) == {"00001.jpg": 3})
        Publisher(app, settings.group_photos).check()
        assert events.is_open
        worker.stop()
    # Celery configures logging for its own process; restore it for other tests.
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers
    assert not events.is_open, "a worker that stops closes its connections"
    assert [letter.reason for letter in tasks.dead_letters().messages()] == ["there is no task 'binwatch.no_such_task'"]
    assert [letter.body for letter in events.dead_letters().messages()] == ["no event"]


def recorded(records: Database) -> dict[str, int]:
    with records.connect() as connection:
        return {row.key: row.predicted for row in connection.execute(select(Count.key, Count.predicted))}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # polling interval
