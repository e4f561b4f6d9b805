"""Number and age of waiting messages on SQS, on RabbitMQ, on both, and while a broker is down."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial

import pytest
from kombu.connection import Connection
from pydantic import SecretStr

from binwatch.events import ObjectCreated
from binwatch.settings import EventSource, Settings
from testing.services.rabbitmq import RabbitMQ
from tests.worker.test_tasks import Scripted, broker, keep_back, nothing_back, running, wait_until  # noqa: F401
from worker.app import make_app
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.queues import queue_url, sqs_client
from worker.metrics import WorkerMetrics
from worker.publisher import Publisher
from worker.queue_depth import DepthPoller, queue_depths

PHOTOS = [ObjectCreated("bins", f"{n}.jpg") for n in range(20)]  # three groups of at most 8


def on_rabbitmq(settings: Settings, rabbitmq: RabbitMQ, events: EventSource) -> Settings:
    overrides = {
        "broker_url": SecretStr(rabbitmq.url),
        "event_source": events,
        "task_queue": f"tasks-{uuid.uuid4().hex}",
    }
    return settings.model_copy(update=overrides)


def send_event(settings: Settings, rabbitmq: RabbitMQ, times: int) -> None:
    events = choose_queues(settings).events
    assert events is not None
    events.create()
    for _ in range(times):
        if settings.event_source is EventSource.SQS:
            sqs = sqs_client(settings)
            sqs.send_message(QueueUrl=queue_url(sqs, settings.event_queue), MessageBody="{}")
        else:
            with Connection(rabbitmq.url) as connection:
                connection.Producer().publish("{}", routing_key=settings.event_queue)


def sample(metrics: WorkerMetrics, name: str, queue: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"queue": queue})


@pytest.mark.parametrize(
    ("tasks", "events"),
    [("sqs", EventSource.SQS), ("rabbitmq", EventSource.RABBITMQ), ("rabbitmq", EventSource.SQS)],
)
def test_depth_of_each_queue(tasks: str, events: EventSource, settings: Settings, rabbitmq: RabbitMQ) -> None:
    choose_queues(settings).create()
    if tasks == "rabbitmq":
        settings = on_rabbitmq(settings, rabbitmq, events)
    choose_queues(settings).dead_letters()[-1].messages()  # on RabbitMQ, this creates the task queues
    depths = partial(queue_depths, choose_queues(settings))
    send_event(settings, rabbitmq, 4)
    publisher = Publisher(make_app(settings), settings.group_photos)
    publisher.count(PHOTOS)
    publisher.dead_letter("binwatch.count_photos", [], "no reason")
    expected = {"events": 4, "events_dead_letters": 0, "tasks": 3, "tasks_dead_letters": 1}
    wait_until(lambda: depths() == expected)  # a quorum queue updates its count with a delay


def test_unknown_depth_clears_the_metric(caplog: pytest.LogCaptureFixture) -> None:
    metrics, answers = WorkerMetrics(), [{"tasks": 5}, ConnectionError("no broker"), {"tasks": 0}]
    values: list[float | None] = []

    def depths() -> dict[str, int]:
        values.append(sample(metrics, "binwatch_worker_queue_messages", "tasks"))
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    metrics.set_oldest_message_age("tasks", 40)
    poller = DepthPoller(depths, metrics.set_queue_depths, interval_s=0.01)
    poller.start()
    wait_until(lambda: len(values) >= 4)
    poller.stop()
    assert values[:4] == [None, 5, None, 0]
    assert sample(metrics, "binwatch_worker_queue_oldest_seconds", "tasks") == 0
    assert "the depth of the queues is unknown: no broker" in caplog.text


def test_age_of_a_task_is_set_on_its_first_attempt_only(
    settings: Settings,
    broker: Callable[[], int],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counting, ages = Scripted(keep_back(0), nothing_back), []
    monkeypatch.setattr(counting.metrics, "set_oldest_message_age", lambda queue, age_s: ages.append((queue, age_s)))
    app = make_app(settings)
    long_ago = time.time() - 100
    with monkeypatch.context() as patch:
        patch.setattr("worker.publisher.time.time", lambda: long_ago)
        Publisher(app, settings.group_photos).count(PHOTOS[:1])
    with running(settings, counting):
        assert counting.done.wait(30)
        wait_until(lambda: broker() == 0)
    [(queue, age_s)] = ages
    assert queue == "tasks"
    assert 100 <= age_s < 160
