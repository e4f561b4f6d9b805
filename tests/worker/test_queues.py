"""The SQS queues on moto's server: made once, checked at each start."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from binwatch.settings import Settings
from worker.queues import (
    EVENT_VISIBILITY_S,
    MAX_RECEIVES,
    TASK_VISIBILITY_S,
    QueueError,
    check_queues,
    create_queues,
    queue_arn,
    queue_url,
    sqs_client,
)


@pytest.fixture
def sqs(settings: Settings) -> Any:
    return sqs_client(settings)


def _attributes(sqs: Any, name: str) -> dict[str, str]:
    url = queue_url(sqs, name)
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]


def _set(sqs: Any, name: str, **attributes: str) -> None:
    sqs.set_queue_attributes(QueueUrl=queue_url(sqs, name), Attributes=attributes)


def test_made_as_they_must_be(sqs: Any, settings: Settings) -> None:
    create_queues(sqs, settings)
    url, dead_url = check_queues(sqs, settings)
    assert url == queue_url(sqs, settings.event_queue)
    assert dead_url == queue_url(sqs, settings.event_dead_letter_queue)
    for name, dead, visibility in (
        (settings.event_queue, settings.event_dead_letter_queue, EVENT_VISIBILITY_S),
        (settings.task_queue, settings.task_queue + "-dead", TASK_VISIBILITY_S),
    ):
        found = _attributes(sqs, name)
        assert found["VisibilityTimeout"] == str(visibility)
        assert json.loads(found["RedrivePolicy"]) == {
            "deadLetterTargetArn": queue_arn(sqs, queue_url(sqs, dead)),
            "maxReceiveCount": MAX_RECEIVES,
        } or json.loads(found["RedrivePolicy"])["maxReceiveCount"] == str(MAX_RECEIVES)
        assert _attributes(sqs, dead)["MessageRetentionPeriod"] == str(14 * 24 * 3600)


def test_made_again_they_keep_what_an_operator_changed(sqs: Any, settings: Settings) -> None:
    create_queues(sqs, settings)
    _set(sqs, settings.event_queue, VisibilityTimeout="7")
    _set(sqs, settings.task_queue + "-dead", MessageRetentionPeriod="60")
    before = {name: _attributes(sqs, name) for name in (settings.event_queue, settings.task_queue)}
    create_queues(sqs, settings)
    assert {name: _attributes(sqs, name) for name in before} == before
    assert before[settings.event_queue]["VisibilityTimeout"] == "7"


@pytest.mark.parametrize("name", ["event_queue", "task_queue", "event_dead_letter_queue"])
def test_missing_queue(sqs: Any, settings: Settings, name: str) -> None:
    create_queues(sqs, settings)
    missing = getattr(settings, name)
    sqs.delete_queue(QueueUrl=queue_url(sqs, missing))
    with pytest.raises(QueueError, match=f"^queue '{missing}' does not exist; create it with: python -m worker setup$"):
        check_queues(sqs, settings)


@pytest.mark.parametrize("name", ["event_queue", "task_queue"])
def test_no_redrive_policy_and_setup_mends_it(sqs: Any, settings: Settings, name: str) -> None:
    sqs.create_queue(QueueName=getattr(settings, name), Attributes={"VisibilityTimeout": "33"})
    for other in {"event_queue", "task_queue", "event_dead_letter_queue"} - {name}:
        sqs.create_queue(QueueName=getattr(settings, other))
    create_queues(sqs, settings)
    _set(sqs, getattr(settings, name), RedrivePolicy="")
    wanted = f"queue '{getattr(settings, name)}' has no redrive policy: .*python -m worker setup"
    with pytest.raises(QueueError, match=wanted):
        check_queues(sqs, settings)
    create_queues(sqs, settings)
    check_queues(sqs, settings)
    assert _attributes(sqs, getattr(settings, name))["VisibilityTimeout"] == "33"


def test_another_broker_needs_no_task_queue_on_sqs(sqs: Any, settings: Settings) -> None:
    create_queues(sqs, settings)
    sqs.delete_queue(QueueUrl=queue_url(sqs, settings.task_queue))
    check_queues(sqs, settings.model_copy(update={"broker_url": SecretStr("amqp://guest:guest@127.0.0.1//")}))


@pytest.mark.parametrize("action", [check_queues, create_queues])
def test_sqs_cannot_be_reached(settings: Settings, closed_url: str, action: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    settings = settings.model_copy(update={"sqs_endpoint_url": closed_url})
    with pytest.raises(QueueError, match=f"queue '{settings.event_queue}': .*{closed_url}.*BINWATCH_SQS_ENDPOINT_URL"):
        action(sqs_client(settings), settings)
