"""Event messages on a real RabbitMQ."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from amqp.exceptions import MessageNacked
from kombu.connection import Connection
from kombu.entity import Queue
from pydantic import SecretStr

from binwatch.settings import Settings
from testing.services.rabbitmq import RabbitMQ
from tests.faults.stack import announcement
from worker.brokers.base import EventMessage, QueueError
from worker.brokers.rabbitmq import events as rabbitmq_module
from worker.brokers.rabbitmq.connections import BrokerBlocked
from worker.brokers.rabbitmq.events import RabbitEventQueue
from worker.brokers.rabbitmq.queues import declare as declare_queues
from worker.brokers.rabbitmq.queues import task_queue
from worker.intake import loop as loop_module
from worker.intake.loop import IntakeLoop


@pytest.fixture
def name() -> str:
    return f"events-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def events(rabbitmq: RabbitMQ, name: str) -> Iterator[RabbitEventQueue]:
    events = open_events(rabbitmq, name)
    events.open()
    yield events
    events.close()


def open_events(rabbitmq: RabbitMQ, name: str) -> RabbitEventQueue:
    return queue_at(rabbitmq.url, name)


def queue_at(url: str, name: str, **overrides: Any) -> RabbitEventQueue:
    names = {"event_queue": name, "event_dead_letter_queue": f"{name}-dead"}
    return RabbitEventQueue(Settings(broker_url=SecretStr(url), s3_timeout_s=5, **(names | overrides)))


def send(rabbitmq: RabbitMQ, queue: str, *bodies: str, **options: object) -> None:
    with Connection(rabbitmq.url, transport_options={"confirm_publish": True}) as connection:
        producer = connection.Producer()
        for body in bodies:
            producer.publish(
                body, routing_key=queue, content_type="application/json", content_encoding="utf-8", **options
            )


def count_messages(rabbitmq: RabbitMQ, queue: str, wanted: int) -> int:
    """Wait for `wanted` messages and return the number in the queue; a quorum queue counts with a delay."""
    deadline = time.monotonic() + 20
    while True:
        with Connection(rabbitmq.url) as connection, connection.channel() as channel:
            count = int(channel.queue_declare(queue, passive=True).message_count)
        if count == wanted or time.monotonic() > deadline:
            return count
        time.sleep(0.05)


def take_messages(events: RabbitEventQueue, wanted: int) -> list[EventMessage]:
    """Receive at least `wanted` messages without deleting them."""
    messages: list[EventMessage] = []
    deadline = time.monotonic() + 20
    while len(messages) < wanted and time.monotonic() < deadline:
        messages += events.receive(1)
    return messages


def receive_bodies(events: RabbitEventQueue, wanted: int) -> list[str]:
    """Receive messages and return their bodies."""
    return [_text(message.body) for message in take_messages(events, wanted)]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # polling interval


def _text(body: str | bytes) -> str:
    return body if isinstance(body, str) else body.decode()


def test_messages_are_unchanged_and_stay_until_deleted(rabbitmq, events, name):
    bodies = [json.dumps({"n": n, "key": "grün +%.jpg"}) for n in range(5)] + ["{not json", '{"properties": 1}']
    send(rabbitmq, name, *bodies)
    assert receive_bodies(events, 7) == bodies
    events.close()
    reopened = open_events(rabbitmq, name)
    messages = []
    while len(messages) < 7:
        messages += reopened.receive(1)
    reopened.delete(messages)
    reopened.close()
    assert count_messages(rabbitmq, name, 0) == 0


def test_transient_message_survives_a_killed_broker(rabbitmq, events, name):
    events.receive(0)
    send(rabbitmq, name, '{"n": 1}', delivery_mode="transient")
    events.close()
    rabbitmq.stop()
    rabbitmq.start()
    reopened = open_events(rabbitmq, name)
    assert receive_bodies(reopened, 1) == ['{"n": 1}']
    reopened.close()


def test_queue_receives_again_after_a_broker_restart(rabbitmq, events, name):
    send(rabbitmq, name, "1")
    first = events.receive(5)
    assert [_text(message.body) for message in first] == ["1"]
    rabbitmq.stop()
    with pytest.raises(OSError):  # noqa: PT011 (each of the ways in which a connection breaks is one)
        events.receive(5)
    rabbitmq.start()
    assert receive_bodies(events, 1) == ["1"]
    events.delete(first)  # a message of the broken connection: no error and no effect
    send(rabbitmq, name, "2")
    assert receive_bodies(events, 1) == ["2"]


def test_undeleted_messages_are_redelivered(rabbitmq, events, name):
    """The broker restarts between receiving and deleting; the intake must not reuse the dead connection."""
    send(rabbitmq, name, *"123")
    messages = []
    while len(messages) < 3:
        messages += events.receive(1)
    rabbitmq.stop()
    for _ in range(2):  # the first write to a dead connection may still succeed
        events.delete(messages)
    rabbitmq.start()
    assert sorted(receive_bodies(events, 3)) == ["1", "2", "3"]


def test_dead_lettered_message_has_its_reason(rabbitmq, events, name):
    send(rabbitmq, name, "no event")
    (message,) = events.receive(5)
    events.dead_letter(message, "not JSON")
    events.delete([message])
    assert count_messages(rabbitmq, name, 0) == 0
    with Connection(rabbitmq.url) as connection:
        dead = connection.default_channel.basic_get(f"{name}-dead", no_ack=True)
    assert _text(dead.body) == "no event"
    assert dead.headers["reason"] == "not JSON"


@pytest.fixture
def refusing(rabbitmq: RabbitMQ, name: str) -> Iterator[RabbitEventQueue]:
    """Return an event queue whose dead-letter queue is full and refuses messages."""
    events = queue_at(rabbitmq.url, name, group_photos=1)
    events._dead_letter_queue.queue_arguments |= {"x-max-length": 1, "x-overflow": "reject-publish"}
    events.create()
    with pytest.raises(MessageNacked):  # a quorum queue refuses a moment after it is full
        send(rabbitmq, f"{name}-dead", *["fills it"] * 1000)
    yield events
    events.close()


def test_refused_dead_letters_are_redelivered_later(rabbitmq, refusing, name):
    send(rabbitmq, name, "no event")
    (message,) = take_messages(refusing, 1)
    with pytest.raises(MessageNacked):
        refusing.dead_letter(message, "not JSON")
    refusing.requeue([message], after_s=3600)
    send(rabbitmq, name, "2")
    assert receive_bodies(refusing, 1) == ["2"]
    refusing.requeue([message])
    assert receive_bodies(refusing, 1) == ["no event"]


def test_at_most_half_of_prefetched_messages_are_held(rabbitmq, refusing, name):
    """At most four messages may be unacknowledged. If all four were held for an hour, no photo would be received."""
    send(rabbitmq, name, "a", "b", "c", "d", "photo")
    refusing.requeue(take_messages(refusing, 4), after_s=3600)
    assert receive_bodies(refusing, 2) == ["photo", "a"]


def test_circulating_messages_are_throttled(rabbitmq, refusing, name, monkeypatch):
    """More messages were refused than may be held. All are retried in turn, limited by the pause."""
    monkeypatch.setattr(rabbitmq_module, "_SURPLUS_INTERVAL_S", 3600)
    send(rabbitmq, name, *"abcdef")
    refusing.requeue(take_messages(refusing, 4), after_s=3600)
    refusing.requeue(
        take_messages(refusing, 2), after_s=3600
    )  # "e" and "f", which push "a" and "b" to the back of the queue
    assert refusing.receive(1) == []
    refusing._surplus_return_at = 0.0  # the pause is over
    assert receive_bodies(refusing, 2) == ["a", "b"]


def test_intake_continues_while_the_dead_letter_queue_refuses(rabbitmq, refusing, name, monkeypatch, caplog):
    monkeypatch.setattr(loop_module, "REDELIVERY_DELAY_S", 0.05)
    counted: list[str] = []
    loop = IntakeLoop(
        refusing,
        count=lambda objects: counted.extend(item.key for item in objects),
        read_metadata=lambda _: None,
        group_photos=8,
        group_wait_s=0.01,
        bucket="binwatch",
        models_prefix="models/",
    )
    loop.start()
    send(rabbitmq, name, "no event", announcement("binwatch", "1.jpg", "abc"))
    wait_until(lambda: counted == ["1.jpg"] and caplog.text.count("cannot be dead-lettered (MessageNacked") >= 3)
    with Connection(rabbitmq.url) as connection:
        connection.default_channel.queue_purge(f"{name}-dead")
    assert (count_messages(rabbitmq, f"{name}-dead", 1), count_messages(rabbitmq, name, 0)) == (1, 0)
    loop.stop(20)
    with Connection(rabbitmq.url) as connection:
        assert connection.default_channel.basic_get(f"{name}-dead").headers["reason"].startswith("not JSON")


def test_deleted_dead_letter_queue_is_recreated(rabbitmq, events, name):
    send(rabbitmq, name, "no event")
    (message,) = take_messages(events, 1)
    with Connection(rabbitmq.url) as connection:
        connection.default_channel.queue_delete(f"{name}-dead")
    events.dead_letter(message, "not JSON")
    events.delete([message])
    assert count_messages(rabbitmq, f"{name}-dead", 1) == 1


def test_connection_breaks_during_dead_lettering(rabbitmq, events, name):
    """The consumer used the same connection: received messages are redelivered and later ones are received."""
    send(rabbitmq, name, "no event")
    (message,) = take_messages(events, 1)
    rabbitmq.stop()
    with pytest.raises(OSError):  # noqa: PT011 (each of the ways in which a connection breaks is one)
        events.dead_letter(message, "not JSON")
    events.requeue([message])
    rabbitmq.start()
    send(rabbitmq, name, "2")
    assert sorted(receive_bodies(events, 2)) == ["2", "no event"]
    assert events.receive(1) == [], "it was redelivered and must not be sent again"


def test_prefetched_events_are_not_dead_lettered(rabbitmq, events, name):
    send(rabbitmq, name, *"123")
    for _ in range(25):
        events.close()
        events = open_events(rabbitmq, name)
        assert receive_bodies(events, 3) == ["1", "2", "3"]
    events.close()
    assert count_messages(rabbitmq, f"{name}-dead", 0) == 0


def test_queue_with_other_properties_is_named(rabbitmq, name):
    with Connection(rabbitmq.url) as connection:
        Queue(name, durable=True)(connection.default_channel).declare()
    with pytest.raises(QueueError, match=f"queue '{name}' exists with other properties"):
        open_events(rabbitmq, name).create()


@pytest.fixture
def user(rabbitmq: RabbitMQ, name: str) -> Iterator[Callable[..., str]]:
    """Return a function that creates a user with permissions and returns the user's broker URL."""

    def make(configure: str, write: str, read: str) -> str:
        rabbitmq.control("add_user", name, "secret")
        rabbitmq.control("set_permissions", "-p", "/", name, configure, write, read)
        return rabbitmq.url.replace("guest:guest", f"{name}:secret")

    yield make
    rabbitmq.control("delete_user", name)


def test_missing_permission_is_not_reported_as_other_properties(user, events, name):
    """Following the advice to delete the queue would lose its messages."""
    url = user("^$", ".*", ".*")
    existing = queue_at(url, name)
    existing.open()
    existing.receive(0)  # without declaring the queues again
    existing.close()
    assert existing.unchecked_queues() == [name, f"{name}-dead"]
    assert events.unchecked_queues() == []
    unknown = queue_at(url, f"{name}-new", event_dead_letter_queue=f"{name}-dead")
    with pytest.raises(
        QueueError,
        match=f"queue '{name}-new' does not exist, and RabbitMQ's user '{name}' lacks the permission to configure it",
    ) as e:
        unknown.open()
    assert "other properties" not in str(e.value)
    unknown.close()
    without = queue_at(url, f"{name}-none")
    with pytest.raises(
        QueueError, match=f"queues '{name}-none-dead', '{name}-none' do not exist, and .* configure them"
    ):
        without.open()
    without.close()


@pytest.mark.parametrize(("write", "read", "what"), [("^$", ".*", "amq.default"), (".*", "^$", "events-")])
def test_missing_permission_is_named_at_start(rabbitmq, user, events, name, write, read, what):
    send(rabbitmq, name, "photo")
    limited = queue_at(user(".*", write, read), name)
    with pytest.raises(QueueError, match=rf"queue '{name}' cannot be used .*403.*{what}.*read from it and to write to"):
        limited.open()
    limited.close()
    events.open()
    assert receive_bodies(events, 1) == ["photo"]


def test_missing_virtual_host_is_named(rabbitmq):
    with pytest.raises(
        QueueError, match=r"RabbitMQ refuses the virtual host .*nowhere.*: correct what follows the host"
    ):
        queue_at(rabbitmq.url[:-1] + "nowhere", "a").open()


def test_nothing_is_sent_while_the_broker_is_low_on_disk(rabbitmq, events, name):
    send(rabbitmq, name, "no event", "photo")
    first = take_messages(events, 2)
    with rabbitmq.alarm("disk"):
        for _ in range(5):
            with pytest.raises(BrokerBlocked, match="accepts no messages"):
                events.dead_letter(first[0], "not JSON")
            assert sorted(receive_bodies(events, 2)) == ["no event", "photo"], (
                "messages are still delivered in the meantime"
            )
    events.close()
    messages = {_text(message.body): message for message in take_messages(events, 2)}
    events.dead_letter(messages["no event"], "not JSON")
    events.delete(list(messages.values()))
    assert count_messages(rabbitmq, f"{name}-dead", 1) == 1, "only once, not once per attempt"
    assert count_messages(rabbitmq, name, 0) == 0


def test_unconfirmed_message_is_an_error(rabbitmq, events, name, monkeypatch):
    """Heartbeats arrive in the meantime and are not confirmations."""
    send(rabbitmq, name, "no event")
    (message,) = take_messages(events, 1)
    monkeypatch.setattr("worker.brokers.rabbitmq.connections.PUBLISH_TIMEOUT_S", 0.0)
    with pytest.raises(BrokerBlocked, match="did not confirm a message within 0 s"):
        events.dead_letter(message, "not JSON")
    monkeypatch.undo()
    (message,) = take_messages(events, 1)
    events.dead_letter(message, "not JSON")
    events.delete([message])
    assert count_messages(rabbitmq, name, 0) == 0


def test_unreachable_broker_error_names_the_setting(closed_url):
    url = closed_url.replace("http://", "amqp://guest:guest@") + "//"
    masked_url = url.replace("guest@", r"\*\*@")
    with pytest.raises(QueueError, match=f"RabbitMQ at {masked_url} cannot be reached .*BINWATCH_BROKER_URL"):
        queue_at(url, "a").open()


def test_messages_rejected_by_celery_are_kept(rabbitmq, name):
    with Connection(rabbitmq.url) as connection:
        declare_queues(connection, [task_queue(f"{name}-dead"), task_queue(name)])
        send(rabbitmq, name, "task")
        channel = connection.default_channel
        channel.basic_reject(channel.basic_get(name).delivery_tag, requeue=False)
    assert count_messages(rabbitmq, f"{name}-dead", 1) == 1
