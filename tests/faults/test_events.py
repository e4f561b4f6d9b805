"""Events that are duplicated, reordered, outdated, lost or invalid."""

from __future__ import annotations

import json
import random

from tests.faults.conftest import Took
from tests.faults.stack import Stack, announcement

PHOTOS = 100


def test_shuffled_events_delivered_three_times(stack: Stack, took: Took) -> None:
    bodies = [body for n in range(PHOTOS) for body in (stack.photo(n), stack.metadata(n, n % 5))] * 3
    random.Random(3).shuffle(bodies)
    stack.publish(bodies)
    stack.start()
    seconds = stack.settle()
    stack.check()
    took(f"{len(bodies)} event messages for {2 * PHOTOS} objects: all recorded {seconds:.1f} s after the start")


def test_object_changed_after_its_event(stack: Stack, took: Took) -> None:
    """Photos are overwritten or deleted while queued; metadata comes before, after or without its photo."""
    bodies = [stack.photo(n) for n in range(20)]
    for number in range(10):  # the first upload no longer exists: two events, one record
        key = f"bin-images/{number:05}.jpg"
        stack.counted = {photo: outcome for photo, outcome in stack.counted.items() if photo[0] != key}
        bodies.append(stack.photo(number, (number + 3) % 7))
    deleted = "bin-images/00019.jpg"
    stack.s3.client.delete_object(Bucket=stack.s3.bucket, Key=deleted)
    (announced,) = (photo for photo in stack.counted if photo[0] == deleted)
    stack.counted[announced] = "missing"
    stack.publish([stack.metadata(n, n % 5) for n in range(0, 10)])
    stack.publish(bodies)
    stack.publish([stack.metadata(n, n % 5) for n in range(10, 30)])
    stack.start()
    first = stack.settle()
    stack.check()
    stack.superseded = [("00005", 1, 0), ("00006", 2, 1)]
    stack.publish([stack.photo(5, 4), stack.metadata(6, 6)])  # a new photo and a corrected quantity of existing bins
    stack.start()
    stack.settle()
    stack.check()
    took(f"{len(bodies)} photo events, all recorded {first:.1f} s after the start")


def test_messages_that_are_not_events(stack: Stack, took: Took) -> None:
    """Each of 30 foreign or hostile bodies among valid ones is dead-lettered with a reason, and stops nothing."""
    good = [stack.photo(n) for n in range(60)]
    hostile = bad_bodies()
    assert len(hostile) == 30
    bodies: list[str | bytes] = [*good, *hostile]
    random.Random(7).shuffle(bodies)
    stack.publish(bodies)
    stack.start()
    seconds = stack.settle()
    stack.check()
    stack.wait_until(lambda: stack.waiting(stack.settings.event_dead_letter_queue) == len(hostile))
    letters = stack.dead_letters()
    texts = [body if isinstance(body, str) else body.decode(errors="replace") for body in hostile]
    assert sorted(letter.body for letter in letters) == sorted(texts)
    assert all(letter.reason and letter.reason not in {"unknown", "delivered too often"} for letter in letters)
    took(f"{len(good)} photos among {len(hostile)} bad messages, recorded {seconds:.1f} s after the start")


def test_all_events_are_lost(stack: Stack, took: Took) -> None:
    """`python -m worker reconcile` finds objects without a record."""
    for n in range(PHOTOS):
        stack.photo(n)
        stack.metadata(n, n % 5)
    stack.start()
    assert f"sent {2 * PHOTOS} photos and metadata files without a record" in stack.reconcile()
    seconds = stack.settle()
    stack.check()
    took(f"{2 * PHOTOS} objects recorded {seconds:.1f} s after reconcile had sent them")


def bad_bodies() -> list[str | bytes]:
    """Bodies that no S3 sends: not JSON, not an event, half an event, and attacks on a parser."""
    event = announcement("binwatch", "bin-images/1.jpg", "abc")
    record = json.loads(event)["Records"][0]
    return [
        b"",
        b"\x00\x01\x02",
        b"\xff\xfe\xfa",
        b"\x80\x04\x95.",  # the start of a pickle
        "hello",
        "{not json",
        event[: len(event) // 2],
        "null",
        "true",
        "17",
        '"text"',
        "[]",
        "[null, null]",
        "{}",
        "NaN",
        "1e999",
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"Records": null}',
        '{"Records": 5}',
        '{"Records": "text"}',
        '{"Records": {}}',
        '{"Records": [null]}',
        '{"Records": [{}]}',
        json.dumps({"Records": [record | {"s3": None}]}),
        json.dumps({"Records": [record | {"s3": {"bucket": {"name": "binwatch"}, "object": {}}}]}),
        json.dumps({"Records": [record | {"eventSource": "minio:s3"}]}),
        json.dumps({"id": "1", "task": "os.system", "args": ["true"], "kwargs": {}}),  # a Celery task of version 1
        announcement("someone-elses", "bin-images/1.jpg", "abc"),
        json.dumps({"properties": {}, "body": "eA==", "headers": {"task": "x"}}),
    ]
