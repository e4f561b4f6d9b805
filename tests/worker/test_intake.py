"""From event messages to tasks: routing, grouping, and deletion only after the broker has accepted the task."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binwatch.events import ObjectCreated
from binwatch.settings import Settings
from testing.services.s3 import S3
from worker.brokers.base import EventMessage
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.events import SqsEventQueue
from worker.brokers.sqs.queues import queue_arn, queue_url, sqs_client
from worker.intake import grouping
from worker.intake.grouping import Group, split_into_chunks
from worker.intake.loop import IntakeLoop
from worker.intake.routing import RoutedMessage, route

WITHIN_S = 30
ROUTING_SETTINGS = {"bucket": "bins", "models_prefix": "models/"}
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def wait_until(condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.01)  # polling interval


def event(*keys: str, name: str = "ObjectCreated:Put") -> str:
    """Return an S3 event message with keys encoded as by S3."""
    records = [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": name,
            "eventTime": WHEN.isoformat(),
            "s3": {"bucket": {"name": "bins"}, "object": {"key": key}},
        }
        for key in keys
    ]
    return json.dumps({"Records": records})


TEST_EVENT = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "bins"})


@pytest.mark.parametrize(
    ("body", "photos", "metadata"),
    [
        (event("a/1.jpg"), ["a/1.jpg"], []),
        (event("1.JPEG"), ["1.JPEG"], []),
        (event("a+b%2Bc%25.png"), ["a b+c%.png"], []),
        (event("metadata/1.json"), [], ["metadata/1.json"]),
        (event("1.jpg", "1.json", "2.webp", "read.me"), ["1.jpg", "2.webp"], ["1.json"]),
        (event("models/v1/card.json", "models/v1/plot.png"), [], []),
        (event("folder.jpg/"), [], []),
        (event("1.jpg", name="ObjectRemoved:Delete"), [], []),
        (TEST_EVENT, [], []),
    ],
)
def test_routes(body: str, photos: list[str], metadata: list[str]) -> None:
    routed = route(body, "bins", "models/")
    assert routed.photos == [ObjectCreated("bins", key, WHEN) for key in photos]
    assert routed.metadata == [ObjectCreated("bins", key, WHEN) for key in metadata]
    assert routed.rejected is None


@pytest.mark.parametrize("body", ["", "not JSON", "[]", "{}", '{"task": "x"}', '{"properties": {"a": 1}}', "null"])
def test_invalid_message_is_rejected(body: str) -> None:
    routed = route(body, "bins", "models/")
    assert (routed.photos, routed.metadata) == ([], [])
    assert routed.rejected


def test_valid_part_of_a_message_is_routed() -> None:
    body = json.loads(event("good.jpg", "bad.jpg"))
    del body["Records"][1]["s3"]["object"]["key"]
    routed = route(json.dumps(body), "bins", "models/")
    assert [item.key for item in routed.photos] == ["good.jpg"]
    assert "no 'key' text" in str(routed.rejected)


def test_photo_of_another_bucket_is_rejected_by_name() -> None:
    routed = route(event("1.jpg"), "ours", "models/")
    assert (routed.photos, routed.rejected) == ([], "bucket 'bins' is not BINWATCH_BUCKET, 'ours'")


@given(st.text() | st.binary())
def test_routing_never_raises(body: str | bytes) -> None:
    route(body, "bins", "models/")


def _objects(number: int, key: str = "{}.jpg") -> list[ObjectCreated]:
    return [ObjectCreated("bins", key.format(n)) for n in range(number)]


@pytest.mark.parametrize(
    ("photos", "metadata", "messages", "due"),
    [(0, 0, 1, False), (3, 3, 1, False), (4, 0, 1, True), (0, 4, 1, True), (9, 0, 1, True), (1, 0, 4, True)],
)
def test_full_group_is_due(photos: int, metadata: int, messages: int, due: bool) -> None:
    group: Group[int] = Group()
    group.add(RoutedMessage(_objects(photos), _objects(metadata)), 0)
    for receipt in range(1, messages):
        group.add(RoutedMessage(), receipt)
    assert group.is_due(4, 60) is due


def test_group_is_due_after_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(grouping.time, "monotonic", lambda: now)
    group: Group[int] = Group()
    assert not group.is_due(4, 0.2)
    group.add(RoutedMessage(_objects(1)), 0)
    now = 1000.1
    group.add(RoutedMessage(_objects(1)), 1)
    assert not group.is_due(4, 0.2)
    now = 1000.2001
    assert group.is_due(4, 0.2)


@given(number=st.integers(0, 50), size=st.integers(1, 9))
def test_split_into_chunks(number: int, size: int) -> None:
    items = _objects(number)
    pieces = split_into_chunks(items, size)
    assert [item for piece in pieces for item in piece] == items
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(1 <= len(piece) <= size for piece in pieces)


def test_chunks_of_long_keys_stay_below_the_broker_limit() -> None:
    items = _objects(256, "ü" * 500 + "{}.jpg")
    pieces = split_into_chunks(items, 256)
    assert [item for piece in pieces for item in piece] == items
    assert len(pieces) > 1
    assert all(len(json.dumps([item.key for item in piece])) < 70_000 for piece in pieces)


class Published:
    """Replaces Celery: records tasks, and refuses the first calls."""

    def __init__(self, refusals: int = 0) -> None:
        self.groups: list[list[str]] = []
        self.refused = 0
        self._refusals = refusals

    def __call__(self, objects: list[ObjectCreated]) -> None:
        if self.refused < self._refusals:
            self.refused += 1
            raise ConnectionError("no broker")
        self.groups.append([item.key for item in objects])

    @property
    def keys(self) -> list[str]:
        return [key for group in self.groups for key in group]


class Queue:
    """The event queue and its dead-letter queue on moto's server."""

    def __init__(self, settings: Settings) -> None:
        self.sqs = sqs_client(settings)
        choose_queues(settings).create()
        self.url, self.dead_url = (
            queue_url(self.sqs, name) for name in (settings.event_queue, settings.event_dead_letter_queue)
        )
        self.events = SqsEventQueue(settings)
        self.events.open()

    def send(self, *bodies: str) -> None:
        for start in range(0, len(bodies), 10):
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
            assert not self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries).get("Failed")

    def left(self) -> int:
        """Return the number of undeleted messages, including those in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        result = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(result[name]) for name in names)

    def dead(self) -> list[tuple[str, str]]:
        """Return bodies and reasons from the dead-letter queue."""
        result: list[tuple[str, str]] = []
        while messages := self.sqs.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            result += [(m["Body"], m["MessageAttributes"]["reason"]["StringValue"]) for m in messages]
        return result


@pytest.fixture
def queue(settings: Settings) -> Queue:
    return Queue(settings)


@pytest.fixture
def run(queue: Queue) -> Iterator[Callable[..., IntakeLoop]]:
    """Return a function that starts intakes on the queue; they are stopped after the test."""
    loops: list[IntakeLoop] = []

    def start(count: Published, read_metadata: Published | None = None, **options: Any) -> IntakeLoop:
        arguments = {"group_photos": 8, "group_wait_s": 0.05, "events": queue.events, **ROUTING_SETTINGS} | options
        loop = IntakeLoop(arguments.pop("events"), count=count, read_metadata=read_metadata or Published(), **arguments)
        loop.start()
        loops.append(loop)
        return loop

    yield start
    for loop in loops:
        loop.stop(WITHIN_S)
        assert not loop._thread.is_alive()


def test_messages_become_groups_and_are_deleted(queue: Queue, run: Any) -> None:
    photos, files = [f"p/{n}.jpg" for n in range(45)], [f"m/{n}.json" for n in range(45)]
    queue.send(*(event(photo, file) for photo, file in zip(photos, files, strict=True)), TEST_EVENT)
    count, read = Published(), Published()
    run(count, read)
    wait_until(lambda: queue.left() == 0)
    assert sorted(count.keys) == sorted(photos)
    assert sorted(read.keys) == sorted(files)
    assert max(map(len, count.groups)) == 8
    assert queue.dead() == []


def test_real_events_of_a_bucket(queue: Queue, run: Any, s3: S3) -> None:
    """Events written by moto, including TestEvent, for keys with special characters."""
    announce = {"QueueArn": queue_arn(queue.sqs, queue.url), "Events": ["s3:ObjectCreated:*"]}
    s3.client.put_bucket_notification_configuration(
        Bucket=s3.bucket,
        NotificationConfiguration={"QueueConfigurations": [announce]},
    )
    keys = ["a b.jpg", "a+b.jpg", "100%.jpg", "ü/日本.jpg", "%2F.jpg"]
    for key in keys:
        s3.put(key, b"photo")
    count = Published()
    run(count, bucket=s3.bucket)
    wait_until(lambda: queue.left() == 0)
    assert sorted(count.keys) == sorted(keys)
    assert queue.dead() == []


def test_messages_are_deleted_after_publishing(queue: Queue, run: Any) -> None:
    queue.send(*(event(f"{n}.jpg") for n in range(5)))
    left: list[int] = []

    def count(objects: list[ObjectCreated]) -> None:
        left.append(queue.left())

    run(count)
    wait_until(lambda: queue.left() == 0)
    assert left[0] == 5


def test_broker_is_down_at_start(queue: Queue, run: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The photos of the group are published once, although the metadata of the same messages are retried."""
    queue.send(*(event(f"{n}.jpg", f"{n}.json") for n in range(20)))
    count, read = Published(refusals=1), Published(refusals=1)
    run(count, read)
    wait_until(lambda: queue.left() == 0)
    assert Counter(count.keys) == Counter(f"{n}.jpg" for n in range(20))
    assert Counter(read.keys) == Counter(f"{n}.json" for n in range(20))
    assert (count.refused, read.refused) == (1, 1)
    assert caplog.text.count("intake: no broker; next try in") == 2


def test_health_follows_the_intake_and_recovers(queue: Queue, run: Any) -> None:
    count = Published(refusals=1)
    loop = run(count)
    loop.check()
    queue.send(event("1.jpg"))
    wait_until(lambda: loop._problem is not None)
    with pytest.raises(ConnectionError, match="no broker"):
        loop.check()
    wait_until(lambda: queue.left() == 0)
    wait_until(lambda: loop._problem is None)
    loop.check()


def test_queue_fails_to_delete_at_first(queue: Queue, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.send(*(event(f"{n}.jpg") for n in range(8)))
    delete, refused = queue.events.delete, []

    def fail_once(messages: Any) -> None:
        if not refused:
            refused.append(len(messages))
            raise ConnectionError("no queue")
        delete(messages)

    monkeypatch.setattr(queue.events, "delete", fail_once)
    count = Published()
    run(count)
    wait_until(lambda: queue.left() == 0)
    assert sorted(count.keys) == sorted(f"{n}.jpg" for n in range(8))
    assert refused == [8]


FOREIGN = ["not JSON", '{"some": "JSON"}', '{"properties": {"x": 1}, "task": "t"}', "[1, 2]", "ü\n\t<xml/>"]


def test_invalid_messages_are_dead_lettered_with_the_reason(queue: Queue, run: Any) -> None:
    half = json.loads(event("good.jpg", "bad.jpg"))
    half["Records"][1]["s3"] = None
    queue.send(event("1.jpg"), *FOREIGN, json.dumps(half), event("2.jpg"))
    count = Published()
    run(count)
    wait_until(lambda: queue.left() == 0)
    assert sorted(count.keys) == ["1.jpg", "2.jpg", "good.jpg"]
    dead = dict(queue.dead())
    assert sorted(dead) == sorted([*FOREIGN, json.dumps(half)])
    assert dead["not JSON"].startswith("not JSON (Expecting value")
    assert dead['{"some": "JSON"}'] == "JSON with the fields ['some'] is not an S3 event; stop sending it here"
    assert dead[json.dumps(half)] == "record 1: no 's3' object"


def test_refusing_dead_letter_queue_does_not_block_photos(queue: Queue, run: Any) -> None:
    """The message stays in its queue until the redrive policy removes it after too many deliveries."""
    queue.sqs.delete_queue(QueueUrl=queue.dead_url)
    queue.send("not JSON", *(event(f"{n}.jpg") for n in range(9)))
    count = Published()
    run(count)
    wait_until(lambda: queue.left() == 1)
    assert sorted(count.keys) == sorted(f"{n}.jpg" for n in range(9))


def test_stop_sends_the_current_group(queue: Queue, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group is not due for a minute; otherwise it would be redelivered only after the visibility timeout."""
    queue.send(event("1.jpg"))
    count = Published()
    receive, received = queue.events.receive, []

    def receive_and_tell(wait_s: int) -> Any:
        messages = receive(wait_s)
        if messages:
            received.extend(messages)
            loop._stopping.set()
        return messages

    monkeypatch.setattr(queue.events, "receive", receive_and_tell)
    loop = IntakeLoop(
        queue.events, count=count, read_metadata=Published(), group_photos=8, group_wait_s=60, **ROUTING_SETTINGS
    )
    loop.start()
    loop.stop(WITHIN_S)
    assert not loop._thread.is_alive()
    assert (len(received), count.keys, queue.left()) == (1, ["1.jpg"], 0)


def test_stop_without_a_broker_requeues_messages(queue: Queue, run: Any) -> None:
    queue.send(event("1.jpg"))
    count = Published(refusals=1000)
    loop = run(count)
    wait_until(lambda: count.refused > 0)
    loop.stop(WITHIN_S)
    assert not loop._thread.is_alive()
    assert (count.keys, queue.left()) == ([], 1)
    assert [message.body for message in queue.events.receive(0)] == [event("1.jpg")]


def test_stop_when_idle(run: Any) -> None:
    loop = run(Published())
    loop.stop(WITHIN_S)
    assert not loop._thread.is_alive()


def test_deleted_queue_does_not_end_the_loop(queue: Queue, run: Any, settings: Settings) -> None:
    queue.sqs.delete_queue(QueueUrl=queue.url)
    count = Published()
    loop = run(count)
    queue.sqs.create_queue(QueueName=settings.event_queue)
    assert queue_url(queue.sqs, settings.event_queue) == queue.url
    queue.send(event("1.jpg"))
    wait_until(lambda: count.keys == ["1.jpg"])
    assert loop._thread.is_alive()


def test_two_intakes_share_a_queue(queue: Queue, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each delivery is published once. A queue may deliver a message twice: SQS promises "at least once"."""
    keys = [f"{uuid.uuid4().hex}.jpg" for _ in range(60)]
    receive, delivered = queue.events.receive, []

    def receive_and_note(wait_s: int) -> list[EventMessage]:
        messages = receive(wait_s)
        delivered.extend(json.loads(message.body)["Records"][0]["s3"]["object"]["key"] for message in messages)
        return messages

    monkeypatch.setattr(queue.events, "receive", receive_and_note)
    queue.send(*map(event, keys))
    counts = Published(), Published()
    loops = [run(count) for count in counts]
    # A message delivered to both at once may be deleted with the older receipt only, and is redelivered after the
    # visibility timeout, which is 30 s.
    wait_until(lambda: queue.left() == 0, 4 * WITHIN_S)
    for loop in loops:
        loop.stop(WITHIN_S)
    assert set(delivered) == set(keys)
    assert Counter(counts[0].keys + counts[1].keys) == Counter(delivered)
