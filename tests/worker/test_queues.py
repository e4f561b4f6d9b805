"""The SQS queues on moto's server: creation, and checks at each start."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from binwatch.errors import SettingsError
from binwatch.settings import EventSource, Settings
from worker.brokers.base import TASK_VISIBILITY_S, EventQueue, QueueError
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.events import VISIBILITY_S as EVENT_VISIBILITY_S
from worker.brokers.sqs.queues import MAX_RECEIVES, queue_arn, queue_url, sqs_client


def events_of(settings: Settings) -> EventQueue:
    events = choose_queues(settings).events
    assert events is not None
    return events


def check(settings: Settings) -> None:
    """Check the queues as a worker does at its start."""
    events_of(settings).open()
    choose_queues(settings).tasks.prepare(to_consume=True)


@pytest.fixture
def sqs(settings: Settings) -> Any:
    return sqs_client(settings)


def _attributes(sqs: Any, name: str) -> dict[str, str]:
    url = queue_url(sqs, name)
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]


def _set(sqs: Any, name: str, **attributes: str) -> None:
    sqs.set_queue_attributes(QueueUrl=queue_url(sqs, name), Attributes=attributes)


def test_attributes_of_created_queues(sqs: Any, settings: Settings) -> None:
    choose_queues(settings).create()
    check(settings)
    for name, dead, visibility in (
        (settings.event_queue, settings.event_dead_letter_queue, EVENT_VISIBILITY_S),
        (settings.task_queue, settings.task_queue + "-dead", TASK_VISIBILITY_S),
    ):
        result = _attributes(sqs, name)
        assert result["VisibilityTimeout"] == str(visibility)
        assert json.loads(result["RedrivePolicy"]) == {
            "deadLetterTargetArn": queue_arn(sqs, queue_url(sqs, dead)),
            "maxReceiveCount": MAX_RECEIVES,
        } or json.loads(result["RedrivePolicy"])["maxReceiveCount"] == str(MAX_RECEIVES)
        assert _attributes(sqs, dead)["MessageRetentionPeriod"] == str(14 * 24 * 3600)


def test_setup_keeps_changes_by_an_operator(sqs: Any, settings: Settings) -> None:
    choose_queues(settings).create()
    _set(sqs, settings.event_queue, VisibilityTimeout="7")
    _set(sqs, settings.task_queue + "-dead", MessageRetentionPeriod="60")
    before = {name: _attributes(sqs, name) for name in (settings.event_queue, settings.task_queue)}
    choose_queues(settings).create()
    assert {name: _attributes(sqs, name) for name in before} == before
    assert before[settings.event_queue]["VisibilityTimeout"] == "7"


@pytest.mark.parametrize("name", ["event_queue", "task_queue", "event_dead_letter_queue"])
def test_missing_queue(sqs: Any, settings: Settings, name: str) -> None:
    choose_queues(settings).create()
    missing = getattr(settings, name)
    sqs.delete_queue(QueueUrl=queue_url(sqs, missing))
    with pytest.raises(QueueError, match=f"^queue '{missing}' does not exist; create it with: python -m worker setup$"):
        check(settings)


@pytest.mark.parametrize("name", ["event_queue", "task_queue"])
def test_setup_adds_a_missing_redrive_policy(sqs: Any, settings: Settings, name: str) -> None:
    sqs.create_queue(QueueName=getattr(settings, name), Attributes={"VisibilityTimeout": "33"})
    for other in {"event_queue", "task_queue", "event_dead_letter_queue"} - {name}:
        sqs.create_queue(QueueName=getattr(settings, other))
    choose_queues(settings).create()
    _set(sqs, getattr(settings, name), RedrivePolicy="")
    expected = f"queue '{getattr(settings, name)}' has no redrive policy: .*python -m worker setup"
    with pytest.raises(QueueError, match=expected):
        check(settings)
    choose_queues(settings).create()
    check(settings)
    assert _attributes(sqs, getattr(settings, name))["VisibilityTimeout"] == "33"


def test_other_broker_needs_no_task_queue_on_sqs(sqs: Any, settings: Settings) -> None:
    choose_queues(settings).create()
    sqs.delete_queue(QueueUrl=queue_url(sqs, settings.task_queue))
    other = settings.model_copy(update={"broker_url": SecretStr("amqp://guest:guest@127.0.0.1//")})
    events_of(other).open()


@pytest.mark.parametrize("action", [check, lambda settings: choose_queues(settings).create()], ids=["check", "create"])
def test_sqs_is_unreachable(settings: Settings, closed_url: str, action: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    settings = settings.model_copy(update={"sqs_endpoint_url": closed_url})
    with pytest.raises(QueueError, match=f"queue '{settings.event_queue}': .*{closed_url}.*BINWATCH_SQS_ENDPOINT_URL"):
        action(settings)


@pytest.mark.parametrize("setting", ["event_queue", "event_dead_letter_queue", "task_queue"])
def test_fifo_queues_are_refused_at_start(settings: Settings, setting: str) -> None:
    """Only on SQS, where the suffix marks FIFO queues; RabbitMQ has no such names."""
    fifo = settings.model_copy(update={setting: "photos.fifo"})
    expected = rf"BINWATCH_{setting.upper()}: 'photos\.fifo' is a FIFO queue\..*standard queue"
    with pytest.raises(SettingsError, match=expected):
        choose_queues(fifo)
    amqp = {"event_source": EventSource.RABBITMQ, "broker_url": SecretStr("amqp://guest:guest@127.0.0.1//")}
    choose_queues(fifo.model_copy(update=amqp))


def test_unknown_region_is_refused_at_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    elsewhere = settings.model_copy(update={"region": "minio-1"})
    choose_queues(elsewhere)
    with pytest.raises(SettingsError, match=r"^BINWATCH_REGION: 'minio-1' is not an AWS region; write"):
        choose_queues(elsewhere.model_copy(update={"sqs_endpoint_url": None}))
