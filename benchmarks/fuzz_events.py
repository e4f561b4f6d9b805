"""Fuzz test with mutated event messages of every dialect: `python -m benchmarks.fuzz_events --events 5000 --seed 1`.

No message may raise an exception, hang, or be lost. An announced object must be valid in a task, a database and a
request to S3; a rejected message must have a short reason; a log message about it must be a single line. At the end, a
worker processes all announced objects, with moto for S3, SQLite for the records and the starter model: each object must
result in one record, and reconcile must find nothing to do. The same seed produces the same messages.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from moto.server import ThreadedMotoServer
from pydantic import SecretStr
from sqlalchemy import func, select

from binwatch.errors import EventError
from binwatch.events import MAX_KEY_BYTES, Dialect, ObjectCreated, parse_message
from binwatch.keys import ObjectKind, has_dot_segments, kind_of, skip_reason
from binwatch.logs import MAX_MESSAGE_CHARS, JsonFormatter, TextFormatter
from binwatch.records.engine import connect, sqlite_url
from binwatch.records.migrate import migrate
from binwatch.records.tables import Count, Expectation
from binwatch.settings import Settings
from worker.brokers.sqs.queues import reason_attribute
from worker.counting import Counting
from worker.intake.routing import RoutedMessage, route
from worker.publisher import as_json
from worker.reconcile import unrecorded_pages
from worker.tasks import parse_object

BUCKET = "bins"
TIME = "2026-11-20T08:15:30Z"
OWN_PREFIXES = ("models/", "nightly/")
"""Prefixes of Binwatch's own objects: models and nightly runs."""
MAX_ROUTING_S = 10.0
"""Maximum time to route one message, in seconds."""
MAX_REASON_CHARS = 8192
_PHOTO = Path(__file__).parent.parent / "samples" / "bin-images" / "00184.jpg"
_GROUP_OBJECTS = 64
_MAX_ADDED_BYTES = 900_000
"""Maximum number of bytes that one mutation adds. Twice this is more than a queue accepts."""
_INSERTIONS = (b"\0", b"\xff\xfe", b"{", b'"', b"\\u0000", b"\\ud800", b"1e999", b"\n")

KEYS = (
    *("bin-images/00123.jpg", "metadata/00123.json", "a b+c%25.JPEG", "ü/日本.png", "cafe\u0301.jpg", "a.jpg.json"),
    *("../x.jpg", "a/../../other/x.jpg", "./a.jpg", "a//b.jpg", "/a.jpg", "//", "", " ", ".", "..", ".jpg", "a.jpg "),
    *("a\n2026-11-20 ERROR forged.jpg", "\x1b[2J.jpg", "a\0.jpg", "\u202egpj.jpg", "\ud800.jpg", "\x85\u2028.json"),
    *("k" * 1020 + ".jpg", "k" * 1021 + ".jpg", "é" * 600 + ".jpg", "%", "%zz.jpg", "%FF.jpg", "+.jpg", "?#.jpg"),
    *("photo", "a.txt", "a.HEIC", "a.jfif", "models/1/card.json", "nightly/runs/1", "folder/", "https://x/y.jpg"),
)
VALUES = (
    *(None, True, False, 0, -1, 10**30, 1e308, "", "x", "\0", "\ud800", [], {}, [[]], [None] * 3, {"": {}}),
    *("s3:TestEvent", "ObjectCreated:Put", "s3:ObjectCreated:Put", "ObjectRemoved:Delete", "ObjectRestore:Completed"),
    *("aws:s3", "aws.s3", "Object Created", "Object Deleted", "AWS API Call via CloudTrail", BUCKET, "other-bucket"),
    *("2026-11-20T08:15:30.123Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "NaN", "a" * 5000, *KEYS),
)


class Violation(Exception):
    """A message was handled incorrectly."""


@dataclass
class FuzzReport:
    """Outcomes of all messages."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    announced: dict[str, ObjectCreated] = field(default_factory=dict)


def message(rng: random.Random) -> Any:
    """An unmutated event message of a random dialect, as JSON types."""
    event: Any
    match rng.choice(("AWS", "AWS", "moto", "versitygw", "bare", "EventBridge", "test")):
        case "AWS":
            records = _records(rng, "ObjectCreated:Put", eTag="d41d8cd98f00b204e9800998ecf8427e", sequencer="0A")
            event = {"Records": records}
        case "moto":
            event = {"Records": _records(rng, "ObjectCreated:CompleteMultipartUpload", eTag="abc-2")}
        case "versitygw":
            event = {"Records": _records(rng, "s3:ObjectCreated:Put", eTag='"abc"', sequencer="1")}
        case "bare":
            event = _records(rng, "s3:ObjectCreated:Put")
        case "EventBridge":
            detail = {"version": "0", "bucket": {"name": BUCKET}, "object": {"key": _key(rng), "etag": "abc"}}
            kind = rng.choice(("Object Created", "Object Restore Completed", "AWS API Call via CloudTrail"))
            event = {"version": "0", "source": "aws.s3", "detail-type": kind, "time": TIME, "detail": detail}
        case "test":
            event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}
    if rng.random() < 0.15:
        return {"Type": "Notification", "TopicArn": "arn:aws:sns:eu-central-1:1:photos", "Message": json.dumps(event)}
    return event


def _key(rng: random.Random) -> str:
    """One of KEYS, or random characters, which may be URL-quoted."""
    if rng.random() < 0.5:
        return rng.choice(KEYS)
    text = "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x11000)))) for _ in range(6))
    ending = rng.choice((".jpg", ".JSON", ".png ", ""))
    return quote(text.encode("utf-8", "replace")) + ending if rng.random() < 0.5 else text + ending


def _records(rng: random.Random, name: str, **fields: Any) -> list[Any]:
    records = []
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        stored = {"key": _key(rng), "size": 1, **fields}
        s3 = {"s3SchemaVersion": "1.0", "bucket": {"name": BUCKET, "arn": "arn:aws:s3:::bins"}, "object": stored}
        common = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": TIME}
        records.append({**common, "eventName": name, "s3": s3})
    return records


def mutated(rng: random.Random) -> str | bytes:
    """The body of a mutated message, as a queue delivers it."""
    value = message(rng)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3, 6))):
        value = _mutate_value(rng, value)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return _damaged(rng, text) if rng.random() < 0.2 else text


def _mutate_value(rng: random.Random, event: Any) -> Any:
    """Change one random value of the event in place."""
    paths = [path for path in _paths(event) if path]
    if not paths:
        return event
    path = rng.choice(paths)
    parent = event
    for step in path[:-1]:
        parent = parent[step]
    last, change = path[-1], rng.randrange(6)
    if change == 0:
        del parent[last]
    elif change == 1 and isinstance(parent, list):
        parent.insert(last, json.loads(json.dumps(parent[last])))
    elif change == 2 and isinstance(parent, dict):
        parent[str(rng.choice(VALUES))[:50]] = parent.pop(last)
    elif change == 3:
        for _ in range(rng.choice((1, 5, 200))):
            parent[last] = [parent[last]]
    elif change == 4 and isinstance(parent, list):
        value = rng.choice(VALUES)
        parent += [value] * min(rng.choice((10, 1000, 250_000)), _MAX_ADDED_BYTES // (len(json.dumps(value)) + 2))
    else:
        parent[last] = rng.choice(VALUES)
    return event


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of the value, and of the values inside it: dictionary keys and list indices."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value[:20]) if isinstance(value, list) else ()
    for step, child in children:
        if len(path) < 12:
            yield from _paths(child, (*path, step))


def _damaged(rng: random.Random, text: str) -> str | bytes:
    data = bytearray(text.encode(errors="surrogatepass"))
    for _ in range(rng.choice((1, 3, 20))):
        position = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                del data[position:]
            case 1:
                data[position:position] = rng.choice(_INSERTIONS)
            case 2:
                data[position : position + 1] = bytes([rng.randrange(256)])
            case 3:
                data[position:position] = data[position : position + 100]
            case 4:
                data[:0] = rng.choice((b"\xef\xbb\xbf", b" " * 1000, b"[" * 2000, b"-"))
    body = bytes(data)
    if rng.random() < 0.1:
        return body.decode(errors="replace").encode("utf-16")
    return body if rng.random() < 0.5 else body.decode(errors="surrogateescape")


def judge(body: str | bytes, report: FuzzReport) -> None:
    """Route one message and record its outcome. Raises Violation, or any exception of the routing."""
    began = time.perf_counter()
    routed = route(body, BUCKET, *OWN_PREFIXES)
    seconds = time.perf_counter() - began
    report.slowest_s = max(report.slowest_s, seconds)
    if seconds > MAX_ROUTING_S:
        raise Violation(f"took {seconds:.0f} s")
    for kind, items in ((ObjectKind.PHOTO, routed.photos), (ObjectKind.METADATA, routed.metadata)):
        for item in items:
            _check_announced(item, kind)
            report.announced.setdefault(item.key, item)
    reason = routed.rejected
    if reason is not None and not (
        0 < len(reason) <= MAX_REASON_CHARS and reason_attribute(reason)["reason"]["StringValue"].isprintable()
    ):
        raise Violation(f"a reason of {len(reason)} characters, {reason[:50]!r}")
    _check_lines(routed)
    report.outcomes[_outcome(body, routed)] += 1


def _check_announced(item: ObjectCreated, kind: ObjectKind) -> None:
    key = item.key
    if not key or "\0" in key or len(key.encode()) > MAX_KEY_BYTES or has_dot_segments(key):
        raise Violation(f"{key[:50]!r} is not a key that can be requested and stored")
    if kind_of(key, OWN_PREFIXES[0]) is not kind or item.bucket != BUCKET:
        raise Violation(f"{key[:50]!r} is not of this bucket, or not {kind}")
    parsed = parse_object(json.loads(json.dumps(as_json(item))))
    if (parsed, parsed.etag) != (item, item.etag):
        raise Violation(f"{key[:50]!r} becomes another key in a task")


def _check_lines(routed: RoutedMessage) -> None:
    """Check the intake's log messages about a message."""
    keys = [item.key for item in routed.photos[:3]]
    record = logging.LogRecord("worker", logging.WARNING, "", 0, "%s: %s", (routed.rejected, routed.skipped), None)
    record.key = keys
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(record)
        if not line.isprintable() or len(line) > 12 * MAX_MESSAGE_CHARS:
            raise Violation(f"a log line of {len(line)} characters: {line[:80]!r}")


def _outcome(body: str | bytes, routed: RoutedMessage) -> str:
    """The outcome of a message. Raises Violation if it would be deleted without a log message."""
    if routed.photos or routed.metadata:
        return "announced, in part rejected" if routed.rejected else "announced"
    if routed.rejected:
        return "rejected"
    if routed.skipped:
        return "skipped"
    try:
        parsed = parse_message(body)
    except EventError as error:
        raise Violation(f"vanished although it is not an event: {error}") from error
    if parsed.dialect is Dialect.TEST:
        return "test event"
    expected = [item.key for item in parsed.created if skip_reason(item.key, *OWN_PREFIXES) is None]
    if len(expected) != len(parsed.created) or not expected:
        raise Violation(f"vanished: {body[:200]!r}")
    return "Binwatch's own object, or a folder marker"


def fuzz(events: int, seed: int) -> FuzzReport:
    """Generate and judge `events` messages."""
    rng, report = random.Random(seed), FuzzReport()
    for number in range(events):
        body = mutated(rng)
        try:
            judge(body, report)
        except Exception as error:  # any exception is a finding
            report.findings.append(f"message {number}: {type(error).__name__}: {error}")
    return report


@contextmanager
def _worker(folder: Path) -> Iterator[tuple[Counting, Settings, Any]]:
    os.environ.update(AWS_ACCESS_KEY_ID="fuzz", AWS_SECRET_ACCESS_KEY="fuzz", AWS_EC2_METADATA_DISABLED="true")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url, records = f"http://{host}:{port}", sqlite_url(folder / "records.db")
    migrate(connect(records))
    settings = Settings(bucket=BUCKET, s3_endpoint_url=url, database_url=SecretStr(records))
    client = boto3.client("s3", endpoint_url=url, region_name=settings.region)
    client.create_bucket(Bucket=BUCKET)
    counting = Counting(settings)
    try:
        yield counting, settings, client
    finally:
        counting.close()
        server.stop()


def count_announced(announced: Iterable[ObjectCreated]) -> list[str]:
    """Let a worker process the announced objects, of which every second one exists. Returns the violations."""
    items = sorted(announced, key=lambda item: item.key)
    with tempfile.TemporaryDirectory() as folder, _worker(Path(folder)) as (counting, settings, client):
        for item in items[::2]:
            data = _PHOTO.read_bytes() if kind_of(item.key) is ObjectKind.PHOTO else b'{"EXPECTED_QUANTITY": 1}'
            try:
                client.put_object(Bucket=BUCKET, Key=item.key, Body=data)
            except (ClientError, BotoCoreError):  # moto rejects a line break in a key; the object is then missing
                continue
        outages = []
        for start in range(0, len(items), _GROUP_OBJECTS):
            group = items[start : start + _GROUP_OBJECTS]
            outages += counting.count([item for item in group if kind_of(item.key) is ObjectKind.PHOTO])
            outages += counting.read_metadata([item for item in group if kind_of(item.key) is ObjectKind.METADATA])
        pages = list(unrecorded_pages(counting.objects, counting.database, settings, bucket=BUCKET))
        unrecorded = [item.key for page in pages for item in (*page.photos, *page.metadata)]
        with counting.database.connect() as connection:
            tables = (Count, Expectation)
            recorded = sum(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)
    return [
        *(f"{outage.item.key[:50]!r} would be retried forever: {outage.error}" for outage in outages),
        *(f"{key[:50]!r} is found by reconcile although it was recorded" for key in unrecorded),
        *([f"{recorded} records of {len(items)} objects"] if recorded != len(items) else []),
    ]


def _memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Judge messages, print the outcomes, and exit with status 1 if there was a violation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # there would be one for each missing object
    report = fuzz(options.events, options.seed)
    fuzzing_mb = _memory_mb()
    report.findings += count_announced(report.announced.values())
    for outcome, messages in report.outcomes.most_common():
        print(f"{messages:6} {outcome}")
    print(f"{len(report.announced):6} objects announced, {len(report.findings)} findings")
    print(
        f"slowest message: {report.slowest_s:.2f} s; memory at most {fuzzing_mb} MB, with the worker {_memory_mb()} MB"
    )
    for finding in report.findings[:50]:
        print(finding.encode("unicode_escape").decode())
    sys.exit(1 if report.findings else 0)


if __name__ == "__main__":
    main()
