"""Tasks that were prefetched, or delayed for a retry, when their workers were stopped."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu.connection import Connection
from pydantic import SecretStr
from sqlalchemy import Engine as Database
from sqlalchemy import select

from binwatch.events import ObjectCreated
from binwatch.records.tables import Count
from binwatch.settings import EventSource, Settings
from testing.brightness import brightness_of, jpeg
from testing.services.s3 import S3
from tests.worker.test_tasks import running
from worker.app import make_app
from worker.brokers.base import EventMessage
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.events import SqsEventQueue
from worker.counting import Counting
from worker.publisher import as_json
from worker.tasks import CountPhotos

RESTARTS = 25
GROUPS = 6
WITHIN_S = 60


@pytest.fixture(params=["rabbitmq", "sqs"])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Return settings for empty task queues."""
    overrides: dict[str, Any] = {"event_source": EventSource.NONE, "task_queue": f"tasks-{uuid.uuid4().hex[:12]}"}
    if request.param == "rabbitmq":
        overrides["broker_url"] = SecretStr(request.getfixturevalue("rabbitmq").url)
    settings = settings.model_copy(update=overrides)
    if request.param == "sqs":
        choose_queues(settings).create()
    return settings


@pytest.fixture
def counting(settings: Settings) -> Iterator[Counting]:
    counting = Counting(settings)
    yield counting
    counting.close()


def take_in_advance(settings: Settings, expected: int) -> None:
    """Receive tasks and stop, like a worker without a free thread."""
    broker = settings.broker_url.get_secret_value()
    if broker.startswith("sqs"):
        receive_from_sqs(settings, expected)
        return
    received: list[object] = []
    with Connection(broker) as connection, connection.channel() as channel:
        channel.basic_qos(0, expected, False)
        channel.basic_consume(settings.task_queue, callback=received.append)
        while len(received) < expected:
            connection.drain_events(timeout=WITHIN_S)


def receive_from_sqs(settings: Settings, expected: int) -> None:
    events = SqsEventQueue(settings.model_copy(update={"event_queue": settings.task_queue}))
    received: list[EventMessage] = []
    while len(received) < expected:
        result = events.receive(1)
        assert result, f"only {len(received)} of {expected} tasks are left in their queue"
        received += result
    events.requeue(received)


def test_frequent_restarts_dead_letter_no_photo(
    settings: Settings, counting: Counting, s3: S3, sqlite_records: Database
) -> None:
    app = make_app(settings)
    choose_queues(settings).dead_letters()[0].messages()  # on RabbitMQ, creates both queues
    for group in range(GROUPS):
        photos = [ObjectCreated(s3.bucket, f"{group}-{n}.jpg") for n in range(1 if group % 2 else 4)]
        for photo in photos:
            s3.put(photo.key, jpeg(brightness_of(group)))
        # Half of them have an ETA as after an outage, which is reached when the last worker starts.
        eta = datetime.now(UTC) + timedelta(seconds=1) if group < GROUPS // 2 else None
        app.send_task(CountPhotos.name, args=[[as_json(photo) for photo in photos]], eta=eta)
    for _ in range(RESTARTS):
        take_in_advance(settings, GROUPS)
    expected = {f"{group}-{n}.jpg": group for group in range(GROUPS) for n in range(1 if group % 2 else 4)}
    with running(settings, counting):
        deadline = time.monotonic() + WITHIN_S
        while recorded(sqlite_records) != expected:
            assert time.monotonic() < deadline, recorded(sqlite_records)
            time.sleep(0.05)  # polling interval
    assert choose_queues(settings).dead_letters()[0].messages() == []


def recorded(records: Database) -> dict[str, int]:
    with records.connect() as connection:
        return {row.key: row.predicted for row in connection.execute(select(Count.key, Count.predicted))}
