"""The tasks in a real Celery worker on moto's SQS: only objects affected by an outage are retried."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Reject, Retry
from kombu.exceptions import OperationalError as BrokerError
from pydantic import SecretStr
from sqlalchemy import Engine as Database
from sqlalchemy.exc import DataError, InterfaceError, InternalError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from binwatch.errors import ObjectsError
from binwatch.events import ObjectCreated
from binwatch.records.crash_counts import CrashCounts
from binwatch.settings import Settings
from worker.app import make_app
from worker.brokers.base import DeadLetter
from worker.brokers.choice import Queues, choose_queues
from worker.brokers.rabbitmq.tasks import RabbitTaskQueue
from worker.brokers.sqs.queues import queue_url, sqs_client
from worker.brokers.sqs.tasks import SqsTaskQueue
from worker.counting import Outage
from worker.metrics import WorkerMetrics
from worker.publisher import Publisher
from worker.starvation import StarvationCheck
from worker.tasks import MAX_BACKOFF_S, MAX_CRASHES, CountPhotos, ReadMetadata, as_json, parse_object

WITHIN_S = 30
WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
PHOTOS = [ObjectCreated("bins", f"{n} ü+%.jpg", WHEN if n else None) for n in range(3)]


class Scripted:
    """Replaces Counting: each call uses the next answer, which returns some photos as outages or raises."""

    def __init__(self, *answers: Callable[[Sequence[ObjectCreated]], list[Outage]]) -> None:
        self.calls: list[list[ObjectCreated]] = []
        self.done = threading.Event()
        self.metrics = WorkerMetrics()
        self.starvation = StarvationCheck()
        self._answers = list(answers)
        self.crashed: list[tuple[str, str]] = []

    def record_crashed_photos(self, photos: Sequence[ObjectCreated], why: str) -> list[Outage]:
        self.crashed += [(photo.key, why) for photo in photos]
        return []

    record_crashed_metadata = record_crashed_photos

    def record_fetch_failed_photos(self, outages: list[Outage]) -> list[Outage]:
        return outages

    def crashed_keys(self, objects: Sequence[ObjectCreated], _: object) -> set[str]:
        return {key for key, _ in self.crashed} & {item.key for item in objects}

    def count(self, photos: Sequence[ObjectCreated]) -> list[Outage]:
        self.calls.append(list(photos))
        answer = self._answers.pop(0)
        if not self._answers:
            self.done.set()
        return answer(photos)

    read_metadata = count


def nothing_back(photos: Sequence[ObjectCreated]) -> list[Outage]:
    return []


def keep_back(*numbers: int) -> Callable[[Sequence[ObjectCreated]], list[Outage]]:
    return lambda photos: [Outage(photos[n], ObjectsError("no S3")) for n in numbers]


def fail(error: Exception) -> Callable[[Sequence[ObjectCreated]], list[Outage]]:
    def raise_it(photos: Sequence[ObjectCreated]) -> list[Outage]:
        raise error

    return raise_it


@contextmanager
def running(settings: Settings, counting: Any) -> Iterator[Celery]:
    app = make_app(settings)
    for task in (CountPhotos, ReadMetadata):
        app.register_task(task(counting, Publisher(app, settings.group_photos), retry_wait_s=0.01))
    level, handlers = logging.root.level, logging.root.handlers[:]
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        yield app
    # Celery configures logging for its own process; restore it for other tests.
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


def send(app: Celery, name: str = CountPhotos.name) -> None:
    app.send_task(name, args=[[as_json(photo) for photo in PHOTOS]])


@pytest.fixture
def broker(settings: Settings) -> Callable[[], int]:
    """Create the queues; return a function that counts the messages left in the task queue."""
    sqs = sqs_client(settings)
    choose_queues(settings).create()
    url = queue_url(sqs, settings.task_queue)
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

    def count_messages() -> int:
        result = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(result[name]) for name in names)

    return count_messages


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s"
        time.sleep(0.02)  # polling interval


@pytest.mark.parametrize("name", [CountPhotos.name, ReadMetadata.name])
def test_only_affected_objects_are_retried(settings: Settings, broker: Callable[[], int], name: str) -> None:
    counting = Scripted(keep_back(0, 2), keep_back(1), nothing_back)
    with running(settings, counting) as app:
        send(app, name)
        assert counting.done.wait(WITHIN_S)
        wait_until(lambda: broker() == 0)
    assert counting.calls == [PHOTOS, [PHOTOS[0], PHOTOS[2]], [PHOTOS[2]]]


DATABASE_OUTAGES = [
    OperationalError("INSERT", {}, sqlite3.OperationalError("the server closed the connection")),
    InterfaceError("INSERT", {}, sqlite3.InterfaceError("connection already closed")),
    InternalError("INSERT", {}, sqlite3.InternalError("cannot execute INSERT in a read-only transaction")),
    ProgrammingError("INSERT", {}, sqlite3.ProgrammingError("permission denied for table counts")),
    NoConnectionFree("QueuePool limit reached"),
]


def test_database_outages_are_retried(settings: Settings, broker: Callable[[], int]) -> None:
    counting = Scripted(*map(fail, DATABASE_OUTAGES), nothing_back)
    with running(settings, counting) as app:
        send(app)
        assert counting.done.wait(WITHIN_S)
        wait_until(lambda: broker() == 0)
    assert counting.calls == [PHOTOS] * 6


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a bug"), DataError("INSERT", {}, sqlite3.DataError("a bug"))], ids=lambda e: type(e)
)
def test_only_the_failing_object_is_dead_lettered(
    settings: Settings, broker: Callable[[], int], error: Exception
) -> None:
    counting = Poisoned(PHOTOS[1].key, error)
    with running(settings, counting) as app:
        send(app)
        wait_until(lambda: bool(dead_tasks(settings)))
        wait_until(lambda: broker() == 0)
    assert sorted(counting.done) == sorted([PHOTOS[0].key, PHOTOS[2].key])
    (letter,) = dead_tasks(settings)
    assert re.match(rf"{type(error).__name__}: .*a bug", letter.reason)
    assert json.dumps(PHOTOS[1].key) in letter.body
    assert counting.crashed == [(PHOTOS[1].key, letter.reason)], "it has a record, so that it is not sent again"


class Poisoned:
    """Replaces Counting: raises if the group contains a certain key."""

    def __init__(self, key: str, error: Exception) -> None:
        self.done: list[str] = []
        self.metrics = WorkerMetrics()
        self.starvation = StarvationCheck()
        self._key = key
        self._error = error
        self.crashed: list[tuple[str, str]] = []

    def record_crashed_photos(self, photos: Sequence[ObjectCreated], why: str) -> list[Outage]:
        self.crashed += [(photo.key, why) for photo in photos]
        return []

    def count(self, photos: Sequence[ObjectCreated]) -> list[Outage]:
        keys = [photo.key for photo in photos]
        if self._key in keys:
            raise self._error
        self.done += keys
        return []


def dead_tasks(settings: Settings) -> list[DeadLetter]:
    return choose_queues(settings).dead_letters()[1].messages()


class Recorder:
    """Replaces Publisher and records what a task sends."""

    def __init__(self) -> None:
        self.resent: list[tuple[list[str], bool]] = []
        self.dead: list[tuple[list[str], str]] = []

    def resend(self, task: str, objects: Sequence[ObjectCreated], *, redelivered: bool) -> None:
        self.resent.append(([item.key for item in objects], redelivered))

    def dead_letter(self, task: str, objects: Sequence[ObjectCreated], reason: str) -> None:
        self.dead.append(([item.key for item in objects], reason))


class WorkerDiesError(BaseException):
    """Simulates the death of the process: no handler of a task catches it."""


@pytest.fixture
def run_delivered(sqlite_records: Database) -> Callable[..., tuple[Recorder, Scripted]]:
    """Return a function that runs a task redelivered by RabbitMQ or SQS."""

    def run(
        photos: Sequence[ObjectCreated],
        *answers: Any,
        request: dict[str, Any] | None = None,
        redelivered: bool = False,
        crashed: Sequence[tuple[str, str]] = (),
    ) -> tuple[Recorder, Scripted]:
        publisher, counting = Recorder(), Scripted(*(answers or [nothing_back]))
        counting.crashed += crashed
        counting.crash_counts = CrashCounts(sqlite_records)
        request = REDELIVERED if request is None else request
        app = Celery("test", broker="memory://", set_as_current=False)
        app.queues = Queues(SqsTaskQueue(Settings()) if "properties" in request else RABBITMQ, None)
        task = app.register_task(CountPhotos(counting, publisher, retry_wait_s=2.0))
        task.push_request(**request)
        try:
            task.run([as_json(photo) for photo in photos], redelivered=redelivered)
        finally:
            task.pop_request()
        return publisher, counting

    return run


RABBITMQ = RabbitTaskQueue(Settings(broker_url=SecretStr("amqp://nowhere")))
REDELIVERED: dict[str, Any] = {"delivery_info": {"redelivered": True}}
RECEIVED_TWICE: dict[str, Any] = {
    "properties": {"delivery_info": {"sqs_message": {"Attributes": {"ApproximateReceiveCount": "2"}}}}
}
RECEIVED_ONCE: dict[str, Any] = {
    "properties": {"delivery_info": {"sqs_message": {"Attributes": {"ApproximateReceiveCount": "1"}}}}
}


FROM_A_BROKER: dict[str, Any] = {"id": "an-id", "retries": 0, "called_directly": False, "is_eager": False}


def die(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> None:
    """Run a task that kills its process."""
    with monkeypatch.context() as patch:
        patch.setattr(CrashCounts, "end", lambda *_: None)
        with pytest.raises(WorkerDiesError):
            run()


@pytest.mark.parametrize("request_", [REDELIVERED, RECEIVED_TWICE], ids=["rabbitmq", "sqs"])
def test_redelivered_group_is_halved_first(run_delivered: Any, request_: dict[str, Any]) -> None:
    publisher, counting = run_delivered(PHOTOS, request=request_)
    assert publisher.resent == [([PHOTOS[0].key], True), ([PHOTOS[1].key, PHOTOS[2].key], True)]
    assert (publisher.dead, counting.calls) == ([], [])


@pytest.mark.parametrize("redelivered", [False, True])
def test_first_delivery_is_processed(run_delivered: Any, redelivered: bool) -> None:
    publisher, counting = run_delivered(PHOTOS, request=RECEIVED_ONCE, redelivered=redelivered)
    assert (publisher.resent, publisher.dead, counting.calls) == ([], [], [PHOTOS])


def test_frequently_redelivered_photo_is_processed(run_delivered: Any) -> None:
    """Stopped workers had prefetched or delayed it, without crashing."""
    for _ in range(3 * MAX_CRASHES):
        publisher, counting = run_delivered(PHOTOS[:1])
        assert (publisher.resent, publisher.dead, counting.calls) == ([], [], [PHOTOS[:1]])


def test_crashing_photo_is_finally_dead_lettered(run_delivered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(MAX_CRASHES):
        die(monkeypatch, lambda: run_delivered(PHOTOS[:1], fail(WorkerDiesError())))
    publisher, counting = run_delivered(PHOTOS[:1])
    why = f"{MAX_CRASHES} workers crashed while processing only this"
    assert publisher.dead == [([PHOTOS[0].key], why)]
    assert counting.crashed == [(PHOTOS[0].key, why)]
    assert counting.calls == []
    # When redriven by an operator, its crash count restarts.
    publisher, counting = run_delivered(PHOTOS[:1], request=RECEIVED_ONCE)
    assert (publisher.dead, counting.calls) == ([], [PHOTOS[:1]])


def test_further_messages_of_a_crashed_photo_crash_no_worker(run_delivered: Any) -> None:
    """A duplicate event or a reconcile may have sent it again before it was recorded."""
    crashed = [(PHOTOS[1].key, "earlier")]
    publisher, counting = run_delivered([PHOTOS[1]], crashed=crashed)
    assert (publisher.dead, counting.calls) == ([], [])
    assert counting.crashed[1:] == [(PHOTOS[1].key, "workers crashed on it before")]
    publisher, counting = run_delivered(PHOTOS, request=RECEIVED_ONCE, redelivered=True, crashed=crashed)
    assert (publisher.dead, counting.calls) == ([], [[PHOTOS[0], PHOTOS[2]]])
    publisher, counting = run_delivered(PHOTOS, request=RECEIVED_ONCE, crashed=crashed)
    assert counting.calls == [PHOTOS], "objects not on trial are processed, since an operator may have redriven them"


def test_redriven_photo_is_processed(run_delivered: Any) -> None:
    """Even if RabbitMQ marks its message as redelivered, as it does after a prefetch."""
    redriven = REDELIVERED | {"reason": "10 workers crashed while processing only this"}
    publisher, counting = run_delivered(PHOTOS[:1], request=redriven, crashed=[(PHOTOS[0].key, "earlier")])
    assert (publisher.dead, counting.calls) == ([], [PHOTOS[:1]])


def test_unrecorded_photo_stays_on_trial(run_delivered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(MAX_CRASHES):
        die(monkeypatch, lambda: run_delivered(PHOTOS[:1], fail(WorkerDiesError())))
    monkeypatch.setattr(
        Scripted, "record_crashed_photos", lambda _, photos, __: [Outage(photos[0], ObjectsError("no S3"))]
    )
    with pytest.raises(Retry):
        run_delivered(PHOTOS[:1], request=REDELIVERED | FROM_A_BROKER)
    monkeypatch.undo()
    publisher, _ = run_delivered(PHOTOS[:1])
    assert publisher.dead == [([PHOTOS[0].key], f"{MAX_CRASHES + 1} workers crashed while processing only this")]


def test_outages_do_not_count_as_crashes(run_delivered: Any) -> None:
    for error in DATABASE_OUTAGES * MAX_CRASHES:
        with pytest.raises(Retry) as retry:
            run_delivered(PHOTOS[:1], fail(error), request=REDELIVERED | FROM_A_BROKER)
        assert retry.value.sig.kwargs == {}, "the retry is sent as a new group, not as a redelivered one"
    assert run_delivered(PHOTOS[:1])[0].dead == []


RECEIVED_ANEW: dict[str, Any] = {"delivery_info": {"redelivered": False}}


@pytest.mark.parametrize(
    ("delivery", "requeue"), [(RECEIVED_ANEW, True), (RECEIVED_ONCE, False)], ids=["rabbitmq", "sqs"]
)
@pytest.mark.parametrize("answer", [keep_back(1), fail(ZeroDivisionError("a bug"))], ids=["next try", "halves"])
def test_task_is_redelivered_if_the_broker_refuses_replacements(
    run_delivered: Any, monkeypatch: pytest.MonkeyPatch, delivery: dict[str, Any], requeue: bool, answer: Any
) -> None:
    """On SQS, a message that is neither deleted nor requeued is redelivered by itself."""
    monkeypatch.setattr("worker.brokers.rabbitmq.tasks.REQUEUE_DELAY_S", 0)

    def refuse(*_: Any, **__: Any) -> None:
        raise BrokerError("reject-publish")

    monkeypatch.setattr(Recorder, "resend", refuse)
    monkeypatch.setattr("celery.canvas.Signature.apply_async", refuse)
    with pytest.raises(Reject) as rejected:
        run_delivered(PHOTOS, answer, request=delivery | FROM_A_BROKER)
    assert rejected.value.requeue is requeue


@pytest.fixture
def task(settings: Settings) -> CountPhotos:
    """Return the task on an in-memory broker without consumers."""
    app = Celery("test", broker="memory://", set_as_current=False)
    app.queues = Queues(RABBITMQ, None)
    counting = Scripted(*[keep_back(1)] * 100)
    return app.register_task(CountPhotos(counting, Recorder(), retry_wait_s=2.0))


def test_invalid_task_is_not_retried(task: CountPhotos) -> None:
    """It must not be redelivered for ever."""
    task.push_request(**FROM_A_BROKER)
    with pytest.raises(TypeError):
        task.run(None)  # type: ignore[arg-type]
    task.pop_request()


def _wait_after(task: CountPhotos, retries: int) -> float:
    task.push_request(**(FROM_A_BROKER | {"retries": retries, "args": [[]], "kwargs": {}}))
    try:
        with pytest.raises(Retry) as retry:
            task.run([as_json(photo) for photo in PHOTOS])
    finally:
        task.pop_request()
    assert retry.value.sig.args == ([as_json(PHOTOS[1])],)
    return float(retry.value.when)


@pytest.mark.parametrize(
    ("retries", "longest"),
    [(0, 2), (1, 4), (2, 8), (3, 16), (4, 32), (5, MAX_BACKOFF_S), (6, MAX_BACKOFF_S), (10_000, MAX_BACKOFF_S)],
)
def test_backoff_grows_up_to_a_limit(
    task: CountPhotos, retries: int, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waits are random within their upper half, so that tasks that failed together are not retried together."""
    for share in (0.5, 1.0):
        with monkeypatch.context() as patch:
            patch.setattr("random.uniform", lambda low, high, share=share: {0.5: low, 1.0: high}[share])
            assert _wait_after(task, retries) == share * longest
    assert longest / 2 <= _wait_after(task, retries) <= longest


@pytest.mark.parametrize("photo", PHOTOS)
def test_objects_survive_serialization(photo: ObjectCreated) -> None:
    assert parse_object(as_json(photo)) == photo
