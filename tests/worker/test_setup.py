"""`python -m worker setup`: queues on RabbitMQ and the bucket, made once."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kombu.connection import Connection
from pydantic import SecretStr

from binwatch.errors import BinwatchError
from binwatch.settings import EventSource, Settings
from tests.services.rabbitmq import RabbitMQ
from tests.services.s3 import S3
from worker.queues import QueueError
from worker.setup import make_bucket, make_queues, migrate_records


@pytest.fixture
def on_rabbitmq(settings: Settings, rabbitmq: RabbitMQ) -> Settings:
    return settings.model_copy(
        update={"event_source": EventSource.RABBITMQ, "broker_url": SecretStr(rabbitmq.url), "bucket": "shelves-new"}
    )


def test_queues_on_rabbitmq_with_their_dead_letter_queues(on_rabbitmq: Settings, rabbitmq: RabbitMQ) -> None:
    make_queues(on_rabbitmq)
    make_queues(on_rabbitmq)  # changes nothing
    pairs = {
        on_rabbitmq.event_queue: on_rabbitmq.event_dead_letter_queue,
        on_rabbitmq.task_queue: on_rabbitmq.task_queue + "-dead",
    }
    with Connection(rabbitmq.url) as connection:
        channel = connection.default_channel
        for queue, dead in pairs.items():
            connection.Producer().publish("refused", routing_key=queue)
            channel.basic_reject(_next(channel, queue).delivery_tag, requeue=False)
            assert _next(channel, dead).body == "refused"


def test_without_an_event_source_sqs_is_not_asked(on_rabbitmq: Settings, rabbitmq: RabbitMQ) -> None:
    nowhere = {"event_source": EventSource.NONE, "sqs_endpoint_url": "http://127.0.0.1:9", "task_queue": "tasks-alone"}
    make_queues(on_rabbitmq.model_copy(update=nowhere))
    with Connection(rabbitmq.url) as connection:
        assert connection.default_channel.queue_declare("tasks-alone", passive=True).message_count == 0


def _next(channel: Any, queue: str) -> Any:
    deadline = time.monotonic() + 20
    while (message := channel.basic_get(queue)) is None:
        assert time.monotonic() < deadline, f"nothing came to {queue}"
    return message


def test_a_broker_that_refuses_the_password(on_rabbitmq: Settings, rabbitmq: RabbitMQ) -> None:
    wrong = SecretStr(rabbitmq.url.replace("guest:guest", "guest:wrong"))
    with pytest.raises(QueueError, match="refuses the user or the password of BINWATCH_BROKER_URL"):
        make_queues(on_rabbitmq.model_copy(update={"broker_url": wrong}))


def test_the_bucket_is_made_once(on_rabbitmq: Settings, s3: S3) -> None:
    assert make_bucket(on_rabbitmq) == "bucket 'shelves-new' made"
    assert make_bucket(on_rabbitmq) == "bucket 'shelves-new' is there"
    s3.client.delete_bucket(Bucket="shelves-new")


def test_a_database_that_cannot_be_reached(on_rabbitmq: Settings) -> None:
    url = SecretStr("postgresql://binwatch:secret@127.0.0.1:9/binwatch")
    with pytest.raises(BinwatchError, match=r"(?s)cannot be used .+; check BINWATCH_DATABASE_URL") as raised:
        migrate_records(on_rabbitmq.model_copy(update={"database_url": url}))
    assert "secret" not in str(raised.value)
