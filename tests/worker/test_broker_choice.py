"""Which broker it is: decided once, by the settings."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from pydantic import SecretStr

from binwatch.errors import SettingsError
from binwatch.settings import EventSource, Settings
from worker.brokers.choice import choose_queues
from worker.brokers.internals import TRIED_WITH
from worker.brokers.rabbitmq.events import RabbitEventQueue
from worker.brokers.rabbitmq.tasks import RabbitTaskQueue
from worker.brokers.sqs.events import SqsEventQueue
from worker.brokers.sqs.tasks import SqsTaskQueue

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
def test_the_settings_decide(broker: str, source: EventSource, tasks: type, events: type) -> None:
    queues = choose_queues(Settings(broker_url=SecretStr(broker), event_source=source))
    assert (type(queues.tasks), type(queues.events)) == (tasks, events)


def test_events_may_be_on_a_rabbitmq_of_their_own() -> None:
    settings = Settings(event_source=EventSource.RABBITMQ)
    with pytest.raises(SettingsError, match="needs BINWATCH_EVENT_BROKER_URL"):
        choose_queues(settings)
    queues = choose_queues(settings.model_copy(update={"event_broker_url": SecretStr(RABBITMQ)}))
    assert (type(queues.tasks), type(queues.events)) == (SqsTaskQueue, RabbitEventQueue)


def test_private_names_were_tried_with_the_versions_that_are_installed() -> None:
    """After an update: read worker/brokers/internals.py beside the new version, run all tests, and name it there."""
    assert {name: version(name) for name in TRIED_WITH} == TRIED_WITH
