"""Events that come more than once, in any order, for what has changed since, not at all, or that are none."""

from __future__ import annotations

import json
import random

from tests.faults.conftest import Took
from tests.faults.house import House, announcement

PHOTOS = 100


def test_every_event_comes_three_times_and_all_are_shuffled(house: House, took: Took) -> None:
    bodies = [body for n in range(PHOTOS) for body in (house.photo(n), house.metadata(n, n % 5))] * 3
    random.Random(3).shuffle(bodies)
    house.publish(bodies)
    house.start()
    seconds = house.settle()
    house.check()
    took(f"{len(bodies)} event messages for {2 * PHOTOS} objects: all recorded {seconds:.1f} s after the start")


def test_what_the_event_announced_has_changed(house: House, took: Took) -> None:
    """Overwritten while queued, deleted before its turn, metadata before, after and without its photo."""
    bodies = [house.photo(n) for n in range(20)]
    for number in range(10):  # the first upload can no longer be had: two events, one record
        key = f"bin-images/{number:05}.jpg"
        house.counted = {photo: outcome for photo, outcome in house.counted.items() if photo[0] != key}
        bodies.append(house.photo(number, (number + 3) % 7))
    gone = "bin-images/00019.jpg"
    house.s3.client.delete_object(Bucket=house.s3.bucket, Key=gone)
    (announced,) = (photo for photo in house.counted if photo[0] == gone)
    house.counted[announced] = "missing"
    house.publish([house.metadata(n, n % 5) for n in range(0, 10)])
    house.publish(bodies)
    house.publish([house.metadata(n, n % 5) for n in range(10, 30)])
    house.start()
    first = house.settle()
    house.check()
    house.superseded = [("00005", 1, 0), ("00006", 2, 1)]
    house.publish([house.photo(5, 4), house.metadata(6, 6)])  # a new photo, and a corrected quantity, of a known bin
    house.start()
    house.settle()
    house.check()
    took(f"{len(bodies)} photo events, all recorded {first:.1f} s after the start")


def test_messages_that_are_no_events(house: House, took: Took) -> None:
    """30 foreign or hostile bodies among good ones: each is dead-lettered with a reason, and stops nothing."""
    good = [house.photo(n) for n in range(60)]
    hostile = bad_bodies()
    assert len(hostile) == 30
    bodies: list[str | bytes] = [*good, *hostile]
    random.Random(7).shuffle(bodies)
    house.publish(bodies)
    house.start()
    seconds = house.settle()
    house.check()
    house.wait_until(lambda: house.waiting(house.settings.event_dead_letter_queue) == len(hostile))
    letters = house.dead_letters()
    texts = [body if isinstance(body, str) else body.decode(errors="replace") for body in hostile]
    assert sorted(letter.body for letter in letters) == sorted(texts)
    assert all(letter.reason and letter.reason not in {"unknown", "delivered too often"} for letter in letters)
    took(f"{len(good)} photos among {len(hostile)} bad messages, recorded {seconds:.1f} s after the start")


def test_all_events_are_lost(house: House, took: Took) -> None:
    """`python -m worker reconcile` finds what is in the bucket without a record."""
    for n in range(PHOTOS):
        house.photo(n)
        house.metadata(n, n % 5)
    house.start()
    assert f"sent {2 * PHOTOS} photos and metadata files without a record" in house.reconcile()
    seconds = house.settle()
    house.check()
    took(f"{2 * PHOTOS} objects recorded {seconds:.1f} s after reconcile had sent them")


def bad_bodies() -> list[str | bytes]:
    """What no S3 sends: not JSON, not an event, half an event, and what is made to break a parser."""
    event = announcement("binwatch", "bin-images/1.jpg", "abc")
    record = json.loads(event)["Records"][0]
    return [
        b"",
        b"\x00\x01\x02",
        b"\xff\xfe\xfa",
        b"\x80\x04\x95.",  # a pickle's beginning
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
