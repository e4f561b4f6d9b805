"""Messages that would stop Celery are dead-lettered with a reason, on SQS and on RabbitMQ."""

from __future__ import annotations

import base64
import json
import logging
import struct
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import amqp
import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from hypothesis import HealthCheck, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st
from kombu.connection import Connection
from kombu.message import Message
from pydantic import SecretStr

from binwatch.events import ObjectCreated
from binwatch.settings import EventSource, Settings
from testing.services.rabbitmq import RabbitMQ
from tests.worker.test_tasks import Scripted
from worker.app import make_app
from worker.brokers.base import EventMessage
from worker.brokers.choice import choose_queues
from worker.brokers.rabbitmq.events import RabbitEventQueue
from worker.brokers.sqs.queues import queue_url, sqs_client
from worker.publisher import Publisher
from worker.task_messages import InvalidTask, validate
from worker.tasks import CountPhotos, ReadMetadata

WITHIN_S = 60
PHOTO = {"bucket": "bins", "key": "1.jpg", "time": None}
CONTENT = [[[PHOTO]], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
IN_AN_HOUR = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
BOMB = zlib.compress(b" " * 10_000_000)


def forged(**changes: Any) -> dict[str, Any]:
    """Return a Celery task message with changed headers, content, type, encoding or properties."""
    headers = {
        "lang": "py",
        "task": CountPhotos.name,
        "id": str(uuid.uuid4()),
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": "1",
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "gen1@here",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    headers |= changes.pop("headers", {})
    content = changes.pop("content", CONTENT)
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    valid = {"headers": headers, "body": body, "content_type": "application/json", "content_encoding": "utf-8"}
    return valid | {"properties": {}} | changes


REFUSED: list[tuple[dict[str, Any], str]] = [
    *[({"headers": {"timelimit": bad}}, "'timelimit'") for bad in ("x", 5, [1], [1, 2, 3], {"a": 1}, ["x", None])],
    *[({"headers": {"eta": bad}}, "'eta'") for bad in ("x", 5, [], "9999-99-99", "0001-01-01T00:00:00+23:59")],
    *[({"headers": {"expires": bad}}, "'expires'") for bad in ("x", 5, {}, "2020-01-01T00:00:00+00:00", IN_AN_HOUR)],
    *[({"headers": {"retries": bad}}, "'retries'") for bad in ("x", -1, [], {}, 1.5)],
    *[({"headers": {"id": bad}}, "'id'") for bad in (None, 5, [], {}, "", "a\nb", "x" * 1000)],
    *[
        ({"headers": {"task": bad}}, "no task")
        for bad in (None, 5, [], {}, "", "celery.chord", "binwatch.x", "x" * 5000)
    ],
    *[({"headers": {name: [1]}}, f"'{name}'") for name in ("lang", "root_id", "argsrepr", "origin")],
    ({"headers": {"compression": "gzip"}, "body": BOMB}, "InvalidTask: it is compressed"),
    ({"headers": {"compression": "x"}}, "cannot be decoded"),
    *[
        ({"content": bad}, "its content")
        for bad in (b"", b"no JSON", b"\xff\xfe", b"null", b"5", b"[" * 100_000, {}, [], [1, 2, 3])
    ],
    *[({"content": [bad, {}, {}]}, "its content") for bad in ("x", {}, 5)],
    *[
        ({"content": [[bad], {}, {}]}, "with its arguments")
        for bad in ("x", 5, [], {}, [5], [{}], [PHOTO | {"key": 5}], [PHOTO | {"time": "x"}])
    ],
    *[
        ({"content": [[[PHOTO]], {"x": 1}, {}]}, "with its arguments"),
        ({"content": [[], {}, {}]}, "with its arguments"),
    ],
    *[
        ({"content": [[[PHOTO]], {}, {name: [{"task": "x"}]}]}, "further tasks")
        for name in ("callbacks", "errbacks", "chain", "chord")
    ],
    *[({"content_type": bad}, "not JSON in UTF-8") for bad in ("application/x-python-serialize", "text/plain", "x/y")],
    *[({"content_encoding": bad}, "not JSON in UTF-8") for bad in ("binary", "utf-16", "no-such-encoding")],
]
GENERAL = ("its content", "no task", "cannot be decoded")
UNREADABLE_HEADER = (
    struct.pack(">H", 1 << 15) + b"\x03\xff\xfe\xfd",  # content type that is not UTF-8
    struct.pack(">HI", 1 << 13, 11) + b"\x01aT" + struct.pack(">Q", 2**63),  # header with an impossible time
)
"""Message properties that RabbitMQ accepts."""
ACCEPTED: list[dict[str, Any]] = [
    {},
    {"headers": {"eta": "2020-01-01T00:00:00"}},
    {"headers": {"eta": IN_AN_HOUR}},
    {"headers": {"timelimit": None, "retries": None}},
    {"headers": {"shadow": {"a": 1}, "group": 5, "stamps": 5, "stamped_headers": 5, "ignore_result": "x"}},
    {"headers": {"no such": "header", "sent_at": "x", "replaced_task_nesting": "x", "chord": 5, "update": 5}},
    {"properties": {"reply_to": "nowhere", "correlation_id": "x", "priority": 9}},
    {"content": [[[PHOTO]], {}, None]},
]
"""Messages with unusual but harmless fields, which are processed."""


class Broker(Protocol):
    settings: Settings

    def put(self, messages: Sequence[dict[str, Any]]) -> None: ...

    def put_raw(self) -> list[str]:
        """Send messages that do not resemble tasks; return a word of each expected reason."""


class Sqs:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings.model_copy(update={"event_source": EventSource.NONE})
        self._client = sqs_client(settings)
        choose_queues(settings).create()
        self._url = queue_url(self._client, settings.task_queue)

    def put(self, messages: Sequence[dict[str, Any]]) -> None:
        for one in messages:
            self._send(self._envelope(**one))

    def put_raw(self) -> list[str]:
        valid = self._envelope(**forged())
        bad: list[tuple[Any, str]] = [
            ("no JSON", "no task"),
            ({"properties": [], "body": "x"}, "it cannot be read"),
            ({"properties": 5}, "it cannot be read"),
            (valid | {"headers": "x"}, "it cannot be read"),
            (valid | {"headers": [1]}, "it cannot be read"),
            (valid | {"headers": None}, "no task"),
            (valid | {"body": "§§§"}, "its content"),
            (valid | {"body": 5}, "it cannot be read"),
            (valid | {"body": None}, "its content"),
            (valid | {"content-type": 5}, "not JSON in UTF-8"),
            (valid | {"content-encoding": []}, "not JSON in UTF-8"),
            (valid | {"properties": {"delivery_info": 5, "body_encoding": "base64"}}, "it cannot be read"),
            (valid | {"properties": {"delivery_info": {}, "body_encoding": "rot13"}}, "it cannot be read"),
            (valid | {"properties": {"delivery_info": {}, "body_encoding": 5}}, "it cannot be read"),
        ]
        for message, _ in bad:
            self._send(message)
        # A message that claims to be from another queue.
        self._send(valid | {"properties": {"body_encoding": "base64", "delivery_info": {"routing_key": "elsewhere"}}})
        return [word for _, word in bad]

    def _envelope(self, headers: Any, body: bytes, content_type: str, content_encoding: str, properties: Any) -> Any:
        route = {"exchange": "", "routing_key": self.settings.task_queue}
        defaults = {
            "body_encoding": "base64",
            "delivery_info": route,
            "delivery_tag": "x",
            "delivery_mode": 2,
            "priority": 0,
        }
        return {
            "body": base64.b64encode(body).decode(),
            "content-type": content_type,
            "content-encoding": content_encoding,
            "headers": headers,
            "properties": defaults | properties,
        }

    def _send(self, message: Any) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        self._client.send_message(QueueUrl=self._url, MessageBody=base64.b64encode(text.encode()).decode())


class Rabbit:
    def __init__(self, settings: Settings, url: str) -> None:
        overrides = {"event_source": EventSource.NONE, "broker_url": SecretStr(url)}
        self.settings = settings.model_copy(update=overrides)
        choose_queues(self.settings).create()

    def put(self, messages: Sequence[dict[str, Any]]) -> None:
        with Connection(self.settings.broker_url.get_secret_value()) as connection:
            for message in messages:
                properties = {name: message[name] for name in ("content_type", "content_encoding")} | message[
                    "properties"
                ]
                packed = amqp.Message(message["body"], application_headers=message["headers"], **properties)
                connection.default_channel.basic_publish(packed, exchange="", routing_key=self.settings.task_queue)

    def put_raw(self) -> list[str]:
        with Connection(self.settings.broker_url.get_secret_value()) as connection:
            for raw in (*UNREADABLE_HEADER, struct.pack(">H", 0)):
                message = amqp.Message(b"x")
                message._serialize_properties = lambda raw=raw: raw
                connection.default_channel.basic_publish(message, exchange="", routing_key=self.settings.task_queue)
        return ["properties cannot be read", "properties cannot be read", "no task"]


@pytest.fixture(params=["sqs", "rabbitmq"])
def broker(request: pytest.FixtureRequest, settings: Settings) -> Broker:
    if request.param == "sqs":
        return Sqs(settings)
    return Rabbit(settings, request.getfixturevalue("rabbitmq").url)


class CountsForever(Scripted):
    """Counts any number of photos."""

    def count(self, photos: Sequence[ObjectCreated]) -> list[Any]:
        self.calls.append(list(photos))
        return []


@contextmanager
def running(settings: Settings, counting: CountsForever) -> Iterator[Celery]:
    app = make_app(settings)
    for task in (CountPhotos, ReadMetadata):
        app.register_task(task(counting, Publisher(app, settings.group_photos), retry_wait_s=0.01))  # type: ignore[arg-type]
    level, handlers = logging.root.level, logging.root.handlers[:]
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        yield app
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s"
        time.sleep(0.05)  # polling interval


def reasons(settings: Settings) -> list[str]:
    (dead,) = choose_queues(settings).dead_letters()
    return [letter.reason for letter in dead.messages()]


def test_hostile_messages_are_dead_lettered_with_reasons(broker: Broker) -> None:
    """The worker survives and processes the valid tasks among them."""
    counting = CountsForever()
    broker.put([forged(**changes) for changes, _ in REFUSED])
    raw = broker.put_raw()
    broker.put([forged(content=[[[PHOTO | {"key": "last.jpg"}]], {}, {}])])
    expected = [word for _, word in REFUSED] + raw
    with running(broker.settings, counting):
        wait_for(lambda: any(photos[0].key == "last.jpg" for photos in counting.calls))
        wait_for(lambda: len(reasons(broker.settings)) == len(expected))
    assert Counter(map(kind_of, reasons(broker.settings))) == Counter(expected)


def kind_of(reason: str) -> str:
    """Return the known word of a reason, special ones first."""
    words = sorted(
        {word for _, word in REFUSED} | {"it cannot be read", "properties cannot be read"}, key=GENERAL.__contains__
    )
    return next(word for word in words if word in reason)


def test_unknown_headers_are_ignored(broker: Broker) -> None:
    counting = CountsForever()
    broker.put([forged(**changes) for changes in ACCEPTED])
    with running(broker.settings, counting):
        wait_for(lambda: len(counting.calls) == len(ACCEPTED))
    assert counting.calls == [[ObjectCreated("bins", "1.jpg", None)]] * len(ACCEPTED)
    assert reasons(broker.settings) == []


def test_dead_lettered_tasks_can_be_redriven(broker: Broker) -> None:
    """The message is redriven unchanged, and dead-lettered again."""
    counting = CountsForever()
    broker.put([forged(headers={"timelimit": "x"})])
    with running(broker.settings, counting):
        wait_for(lambda: len(reasons(broker.settings)) == 1)
        (dead,) = choose_queues(broker.settings).dead_letters()
        assert dead.redrive() == 1
        wait_for(lambda: len(reasons(broker.settings)) == 1)
    assert "'timelimit'" in reasons(broker.settings)[0]
    assert counting.calls == []


def test_event_messages_with_unreadable_properties_are_received(rabbitmq: RabbitMQ) -> None:
    name = f"events-{uuid.uuid4().hex[:12]}"
    names = {"event_queue": name, "event_dead_letter_queue": name + "-dead"}
    events = RabbitEventQueue(Settings(broker_url=SecretStr(rabbitmq.url), **names))
    events.open()
    with Connection(rabbitmq.url) as connection:
        for raw in (*UNREADABLE_HEADER, struct.pack(">H", 0)):
            message = amqp.Message(b"x")
            message._serialize_properties = lambda raw=raw: raw
            connection.default_channel.basic_publish(message, exchange="", routing_key=name)
    received: list[EventMessage] = []
    wait_for(lambda: received.extend(events.receive(1)) or len(received) == 3)
    assert [(one.body, one.sent_at) for one in received] == [(b"x", None)] * 3
    events.close()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@with_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    headers=st.dictionaries(st.sampled_from([*forged()["headers"], "sent_at", "x"]), ANYTHING, max_size=3),
    content=ANYTHING,
)
def test_any_message_is_valid_or_invalid_task(headers: dict[str, Any], content: Any) -> None:
    task = CountPhotos(None, None, 0.1)  # type: ignore[arg-type]
    valid = forged(headers=headers, content=[[[PHOTO]], {}, content])
    message = Message(
        valid["body"],
        content_type="application/json",
        content_encoding="utf-8",
        headers=valid["headers"],
        accept={"application/json"},
    )
    try:
        validate(message, {CountPhotos.name: task})
    except InvalidTask:
        return
    assert message.headers["task"] == CountPhotos.name
    assert message.headers["eta"] is None or datetime.fromisoformat(message.headers["eta"]) > datetime.now(UTC)
