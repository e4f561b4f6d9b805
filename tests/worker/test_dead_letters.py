"""Dead letters are listed with their reason, redriven and deleted, on both brokers."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from amqp import Channel
from amqp.exceptions import InternalError
from celery import Celery, Task
from celery.contrib.testing.worker import start_worker
from kombu.connection import Connection
from pydantic import SecretStr

from binwatch.errors import BinwatchError
from binwatch.settings import EventSource, LogLevel, Settings, process_environment
from testing.services.rabbitmq import RabbitMQ
from worker.__main__ import cli
from worker.app import make_app
from worker.brokers.base import DeadLetter, DeadLetterQueue, EventMessage, EventQueue, QueueError
from worker.brokers.choice import choose_queues
from worker.brokers.rabbitmq import dead_letters as dead_letters_module
from worker.tasks import RECONCILE

ROOT = Path(__file__).parent.parent.parent
Broker = tuple[Settings, EventQueue]


@pytest.fixture(params=["sqs", "rabbitmq"])
def broker(request: pytest.FixtureRequest, settings: Settings) -> Broker:
    """Return settings for empty queues and a client of the event queue."""
    if request.param == "rabbitmq":
        rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
        name = uuid.uuid4().hex[:12]
        settings = settings.model_copy(
            update={
                "event_source": EventSource.RABBITMQ,
                "broker_url": SecretStr(rabbitmq.url),
                "event_queue": f"events-{name}",
                "event_dead_letter_queue": f"events-{name}-dead",
                "task_queue": f"tasks-{name}",
            }
        )
    else:
        choose_queues(settings).create()
    events = choose_queues(settings).events
    assert events is not None
    events.open()
    return settings, events


def wait_for_dead_letters(look: Callable[[], list[DeadLetter]], count: int) -> list[DeadLetter]:
    """Wait, since a quorum queue shows a message only a moment after confirming it."""
    deadline = time.monotonic() + 20
    while len(result := look()) != count and time.monotonic() < deadline:
        time.sleep(0.05)
    return result


def of_events(settings: Settings) -> DeadLetterQueue:
    return choose_queues(settings).dead_letters()[0]


def dead_letter(events: EventQueue, body: str, reason: str) -> None:
    events.dead_letter(EventMessage("1", body, None), reason)


def test_dead_letters_are_listed_with_reasons_and_stay(broker):
    settings, events = broker
    dead_letter(events, '{"a": 1}', "not an S3 event")
    dead_letter(events, "grün", "not JSON")
    expected = {
        DeadLetter(settings.event_dead_letter_queue, "not an S3 event", '{"a": 1}'),
        DeadLetter(settings.event_dead_letter_queue, "not JSON", "grün"),
    }
    for _ in range(3):
        assert set(wait_for_dead_letters(of_events(settings).messages, 2)) == expected
    events.close()


def test_redriven_messages_return_to_their_queue(broker):
    settings, events = broker
    bodies = [f'{{"n": {n}}}' for n in range(12)]
    for body in bodies:
        dead_letter(events, body, "not an S3 event")
    wait_for_dead_letters(of_events(settings).messages, 12)
    assert of_events(settings).redrive() == 12
    received: list[str] = []
    deadline = time.monotonic() + 20
    while len(received) < 12 and time.monotonic() < deadline:
        received += [m.body if isinstance(m.body, str) else m.body.decode() for m in events.receive(1)]
    assert sorted(received) == sorted(bodies)
    assert of_events(settings).messages() == []
    events.close()


def test_rejected_task_is_listed(broker, rabbitmq):
    settings, events = broker
    if settings.event_source is not EventSource.RABBITMQ:
        pytest.skip("SQS itself moves a rejected task, after its visibility time-outs")
    app = make_app(settings)
    choose_queues(settings).dead_letters()[1].messages()  # declares both queues
    app.send_task("binwatch.count_photos", args=[[]])
    with Connection(rabbitmq.url) as connection:
        channel = connection.default_channel
        channel.basic_reject(channel.basic_get(settings.task_queue).delivery_tag, requeue=False)
    (letter,) = wait_for_dead_letters(choose_queues(settings).dead_letters()[1].messages, 1)
    assert (letter.queue, letter.reason) == (settings.task_queue + "-dead", "rejected by the worker")
    assert choose_queues(settings).dead_letters()[1].redrive() == 1
    with Connection(rabbitmq.url) as connection:
        message = connection.default_channel.basic_get(settings.task_queue)
    assert message.headers["task"] == "binwatch.count_photos"
    events.close()


def test_expired_task_is_not_dead_lettered(broker):
    """RabbitMQ would dead-letter it; expired reconcile tasks must be dropped by the next worker."""
    settings, _ = broker
    app = make_app(settings)
    app.queues.tasks.prepare()
    ran: list[str] = []

    class Noted(Task):
        name, may_expire = RECONCILE, True

        def run(self) -> None:
            ran.append(self.request.id)

    app.register_task(Noted())
    app.send_task(RECONCILE, task_id="expired", expires=0.001)
    app.send_task(RECONCILE, task_id="in-time", expires=3600)
    with running_worker(app):
        deadline = time.monotonic() + 60
        while "in-time" not in ran and time.monotonic() < deadline:
            time.sleep(0.05)  # polling interval
    assert ran == ["in-time"]
    assert choose_queues(settings).dead_letters()[1].messages() == []


@contextmanager
def running_worker(app: Celery) -> Iterator[None]:
    level, handlers = logging.root.level, logging.root.handlers[:]
    with start_worker(app, pool="threads", concurrency=1, perform_ping_check=False):
        yield
    # Celery configures logging for its own process; restore it for other tests.
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


def test_command_lists_and_redrives(broker):
    settings, events = broker
    dead_letter(events, "no\nevent \x1b[2J" + "x" * 300, "not JSON")
    wait_for_dead_letters(of_events(settings).messages, 1)
    shown = command(settings)
    assert re.fullmatch(r"[0-9a-f]{12}", shown.partition(" ")[0])
    assert shown.partition(" ")[2].startswith(f"{settings.event_dead_letter_queue}: not JSON: no\\nevent \\x1b[2Jxxx")
    assert shown.endswith("…\n")
    assert run(settings).stderr.splitlines()[-1] == "1 dead letter"
    assert command(settings, "--redrive") == "redrove 1 message\n"
    listed = run(settings)
    assert (listed.returncode, listed.stdout, listed.stderr.splitlines()[-1]) == (0, "", "no dead letters")
    assert command(settings, "--redrive") == "no dead letters: redrove nothing\n"
    quiet = run(settings.model_copy(update={"log_level": LogLevel.WARNING}))
    assert (quiet.returncode, quiet.stdout) == (0, "")
    assert "dead letters" not in quiet.stderr
    events.close()


def test_only_selected_messages_are_deleted(broker):
    settings, events = broker
    for body in ("a", "b", "b", "c"):
        dead_letter(events, body, "not JSON")
    letters = wait_for_dead_letters(of_events(settings).messages, 4)
    chosen = {letter.id for letter in letters if letter.body == "b"}
    assert len(chosen) == 1, "equal messages have equal ids"
    deleted = list(of_events(settings).delete(lambda letter: letter.id in chosen))
    assert [letter.body for letter in deleted] == ["b", "b"]
    assert sorted(letter.body for letter in wait_for_dead_letters(of_events(settings).messages, 2)) == ["a", "c"]
    assert list(of_events(settings).delete(lambda _: False)) == []
    assert len(list(of_events(settings).delete(lambda _: True))) == 2
    assert wait_for_dead_letters(of_events(settings).messages, 0) == []
    events.close()


def test_command_deletes_and_prints_messages_in_full(broker):
    settings, events = broker
    for body in ("y" * 300, "z"):
        dead_letter(events, body, "not JSON")
    wait_for_dead_letters(of_events(settings).messages, 2)
    listed = dict(line.split(" ", 1) for line in command(settings).splitlines())
    (long,) = [one for one, text in listed.items() if text.endswith("…")]
    queue = settings.event_dead_letter_queue
    assert command(settings, "--delete", long) == f"deleted: {long} {queue}: not JSON: {'y' * 300}\n"
    gone = run(settings, "--delete", long)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == f"error: no message has the id {long}; list them again\n"
    assert command(settings, "--delete", "--all").endswith(f"{queue}: not JSON: z\n")
    assert command(settings) == ""
    events.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--delete"], "pass ids of the list, or --all"),
        (["--delete", "--all", "0123456789ab"], "pass ids of the list, or --all"),
        (["--delete", "--redrive", "--all"], "exclude each other"),
        (["--all"], "need --delete"),
        (["0123456789ab"], "need --delete"),
        (["--redrive", "0123456789ab"], "need --delete"),
    ],
)
def test_delete_needs_ids_or_all(options: list[str], words: str) -> None:
    with pytest.raises(BinwatchError, match=words):
        cli(["dead-letters", *options], standalone_mode=False)


def command(settings: Settings, *options: str) -> str:
    done = run(settings, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(settings: Settings, *options: str) -> subprocess.CompletedProcess[str]:
    environment = process_environment(settings) | {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "worker", "dead-letters", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def slow_queue(
    rabbitmq: RabbitMQ, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], DeadLetterQueue]:
    """Return a dead-letter queue with a message, whose first reads fail as after a broker start."""
    name, get = f"tasks-{uuid.uuid4().hex[:12]}", Channel.basic_get
    overrides = {"broker_url": SecretStr(rabbitmq.url), "event_source": EventSource.NONE, "task_queue": name}
    (queue,) = choose_queues(settings.model_copy(update=overrides)).dead_letters()
    queue.messages()
    with Connection(rabbitmq.url) as connection:
        connection.Producer().publish("a", routing_key=f"{name}-dead", headers={"reason": "no reason"})

    def fails(times: int) -> DeadLetterQueue:
        left = [None] * times

        def fail(channel: Channel, *arguments: object, **options: object) -> object:
            if left:
                left.pop()
                raise InternalError("INTERNAL_ERROR - timed out")
            return get(channel, *arguments, **options)

        monkeypatch.setattr(Channel, "basic_get", fail)
        monkeypatch.setattr(dead_letters_module, "_RETRY_INTERVAL_S", 0.01)
        return queue

    return fails


def test_unready_queue_is_retried(slow_queue, caplog):
    queue = slow_queue(3)
    assert [letter.reason for letter in wait_for_dead_letters(queue.messages, 1)] == ["no reason"]
    assert caplog.text.count("is not ready (InternalError: INTERNAL_ERROR - timed out); trying again") == 3


def test_queue_that_stays_unready_is_named(slow_queue, monkeypatch):
    monkeypatch.setattr(dead_letters_module, "READY_TIMEOUT_S", 0.05)
    with pytest.raises(QueueError, match=r"its queue 'tasks-\w+-dead' did not within 0 s \(InternalError.*try again"):
        slow_queue(10_000).messages()


def test_unreachable_broker_is_named_at_once(settings, closed_url):
    url = closed_url.replace("http://", "amqp://guest:guest@") + "//"
    overrides = {"broker_url": SecretStr(url), "event_source": EventSource.NONE}
    (queue,) = choose_queues(settings.model_copy(update=overrides)).dead_letters()
    with pytest.raises(QueueError, match=r"RabbitMQ at amqp://guest:\*\*@.* cannot be reached .*BINWATCH_BROKER_URL"):
        queue.messages()
