"""`python -m worker setup`: creates queues on RabbitMQ and the bucket, once."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from kombu.connection import Connection
from pydantic import SecretStr

from binwatch.errors import BinwatchError, ObjectsError, SettingsError
from binwatch.settings import EventSource, Settings
from testing.services.rabbitmq import RabbitMQ
from testing.services.s3 import S3
from worker.brokers.base import QueueError
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.queues import queue_arn, queue_url, sqs_client
from worker.provisioning import enable_event_notifications, make_bucket, make_queues, migrate_records


@pytest.fixture
def on_rabbitmq(settings: Settings, rabbitmq: RabbitMQ) -> Settings:
    return settings.model_copy(
        update={"event_source": EventSource.RABBITMQ, "broker_url": SecretStr(rabbitmq.url), "bucket": "shelves-new"}
    )


def test_queues_on_rabbitmq_with_their_dead_letter_queues(on_rabbitmq: Settings, rabbitmq: RabbitMQ) -> None:
    names = [*("events", "events-dead", "tasks", "tasks-dead")]
    made = ", ".join(f"set-up-{name}" for name in names)
    overrides = {
        "event_queue": "set-up-events",
        "event_dead_letter_queue": "set-up-events-dead",
        "task_queue": "set-up-tasks",
    }
    on_rabbitmq = on_rabbitmq.model_copy(update=overrides)
    assert make_queues(on_rabbitmq) == f"created 4 queues: {made}"
    assert make_queues(on_rabbitmq) == "all queues exist already: created none"
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


def test_no_sqs_request_without_an_event_source(on_rabbitmq: Settings, rabbitmq: RabbitMQ) -> None:
    nowhere = {"event_source": EventSource.NONE, "sqs_endpoint_url": "http://127.0.0.1:9", "task_queue": "tasks-alone"}
    choose_queues(on_rabbitmq.model_copy(update=nowhere)).create()
    with Connection(rabbitmq.url) as connection:
        assert connection.default_channel.queue_declare("tasks-alone", passive=True).message_count == 0


def _next(channel: Any, queue: str) -> Any:
    deadline = time.monotonic() + 20
    while (message := channel.basic_get(queue)) is None:
        assert time.monotonic() < deadline, f"nothing came to {queue}"
    return message


def test_broker_refuses_the_password(on_rabbitmq: Settings, rabbitmq: RabbitMQ) -> None:
    wrong = SecretStr(rabbitmq.url.replace("guest:guest", "guest:wrong"))
    with pytest.raises(QueueError, match="refuses the user or the password of BINWATCH_BROKER_URL"):
        choose_queues(on_rabbitmq.model_copy(update={"broker_url": wrong})).create()


def test_bucket_is_created_once(on_rabbitmq: Settings, s3: S3) -> None:
    assert make_bucket(on_rabbitmq) == "created the bucket 'shelves-new'"
    assert make_bucket(on_rabbitmq) == "the bucket 'shelves-new' exists already"
    s3.client.delete_bucket(Bucket="shelves-new")


def _keys(client: Any, url: str) -> list[str]:
    """Return the object keys in the event messages of a queue."""
    answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
    bodies = [json.loads(message["Body"]) for message in answer.get("Messages", [])]
    return [record["s3"]["object"]["key"] for body in bodies for record in body.get("Records", [])]


def test_bucket_sends_its_events(settings: Settings, s3: S3) -> None:
    client = sqs_client(settings)
    choose_queues(settings).create()
    assert (
        enable_event_notifications(settings)
        == f"bucket {s3.bucket!r} now sends its events to queue {settings.event_queue!r}"
    )
    s3.put("a.jpg", b"a")
    assert _keys(client, queue_url(client, settings.event_queue)) == ["a.jpg"]
    assert (
        enable_event_notifications(settings)
        == f"bucket {s3.bucket!r} already sends its events to queue {settings.event_queue!r}"
    )
    (queue,) = s3.client.get_bucket_notification_configuration(Bucket=s3.bucket)["QueueConfigurations"]
    assert queue["Events"] == ["s3:ObjectCreated:*", "s3:ObjectRestore:Completed"]


def test_existing_configuration_of_bucket_and_queue_stays(settings: Settings, s3: S3) -> None:
    client = sqs_client(settings)
    choose_queues(settings).create()
    url, dead_url = queue_url(client, settings.event_queue), queue_url(client, settings.event_dead_letter_queue)
    other = {"Id": "other", "QueueArn": queue_arn(client, dead_url), "Events": ["s3:ObjectRemoved:*"]}
    s3.client.put_bucket_notification_configuration(
        Bucket=s3.bucket, NotificationConfiguration={"QueueConfigurations": [other]}
    )
    arn = queue_arn(client, url)
    statement = {"Sid": "Mine", "Effect": "Deny", "Principal": "*", "Action": "sqs:PurgeQueue", "Resource": arn}
    policy = {"Version": "2012-10-17", "Statement": statement}
    client.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    for _ in range(2):
        enable_event_notifications(settings)
    queues = s3.client.get_bucket_notification_configuration(Bucket=s3.bucket)["QueueConfigurations"]
    assert [queue["QueueArn"] for queue in queues] == [other["QueueArn"], arn]
    text = client.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"]
    kept, added = json.loads(text)["Statement"]
    assert kept == statement
    assert (added["Action"], added["Resource"]) == ("sqs:SendMessage", arn)
    assert added["Condition"] == {
        "ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{s3.bucket}"},
        "StringEquals": {"aws:SourceAccount": arn.split(":")[4]},
    }


def test_events_need_a_queue_on_sqs_and_a_bucket(settings: Settings) -> None:
    with pytest.raises(QueueError, match="does not exist; create it with: python -m worker setup"):
        enable_event_notifications(settings)
    choose_queues(settings).create()
    with pytest.raises(ObjectsError, match="bucket 'nowhere-at-all' does not exist"):
        enable_event_notifications(settings.model_copy(update={"bucket": "nowhere-at-all"}))
    with pytest.raises(SettingsError, match=r"for BINWATCH_EVENT_SOURCE=sqs.*docs/servers\.md"):
        enable_event_notifications(
            settings.model_copy(update={"event_source": EventSource.RABBITMQ, "broker_url": SecretStr("amqp://")})
        )


def test_unreachable_database(on_rabbitmq: Settings) -> None:
    url = SecretStr("postgresql://binwatch:secret@127.0.0.1:9/binwatch")
    with pytest.raises(BinwatchError, match=r"(?s)cannot be used: .+; BINWATCH_DATABASE_URL is not set") as raised:
        migrate_records(on_rabbitmq.model_copy(update={"database_url": url}))
    assert "secret" not in str(raised.value)
