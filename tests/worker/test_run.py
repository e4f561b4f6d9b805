"""The process `python -m worker run` on moto's S3 and SQS, from photos in the bucket to records."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import func, select

from binwatch.counts import outcome_of
from binwatch.records.tables import Comparison, Count, Expectation
from binwatch.settings import LogFormat, Settings, process_environment
from binwatch.version import version
from testing.brightness import brightness_of, jpeg
from testing.services.proxy import Proxy
from testing.services.s3 import S3
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.queues import queue_arn, queue_url, sqs_client

ROOT = Path(__file__).parent.parent.parent
WITHIN_S = 60
VISIBILITY_S = 2
"""Short, so that messages of a killed worker are redelivered soon."""

Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def sqs(settings: Settings, s3: S3) -> Any:
    """Create queues and a bucket that sends events for new objects."""
    client = sqs_client(settings)
    choose_queues(settings).create()
    for name in (settings.event_queue, settings.task_queue):
        url = queue_url(client, name)
        client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(VISIBILITY_S)})
    announce = {
        "QueueArn": queue_arn(client, queue_url(client, settings.event_queue)),
        "Events": ["s3:ObjectCreated:*"],
    }
    s3.client.put_bucket_notification_configuration(
        Bucket=s3.bucket, NotificationConfiguration={"QueueConfigurations": [announce]}
    )
    return client


@pytest.fixture
def start(settings: Settings, sqs: Any, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a worker and waits until it is ready; kill workers and print logs at the end."""
    credentials = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start() -> subprocess.Popen[bytes]:
        log = tmp_path / f"worker-{len(started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"],
                cwd=ROOT,
                env=process_environment(settings) | credentials,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append((process, log))
        wait_until(lambda: " ready." in log.read_text(errors="replace"), process)
        return process

    yield start
    for process, log in started:
        process.kill()
        process.wait()
        print(f"--- {log.name}, status {process.returncode}\n{log.read_text(errors='replace')[-4000:]}")


@pytest.fixture
def messages_by_queue(settings: Settings, sqs: Any) -> Callable[[], dict[str, int]]:
    """Return a function that counts the messages of each queue, including those in flight."""

    def count() -> dict[str, int]:
        result = {}
        for name in (settings.event_queue, settings.task_queue, settings.event_dead_letter_queue):
            names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
            answer = sqs.get_queue_attributes(QueueUrl=queue_url(sqs, name), AttributeNames=names)["Attributes"]
            result[name] = sum(int(answer[name]) for name in names)
        return result

    return count


def wait_until(condition: Callable[[], bool], worker: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert worker is None or worker.poll() is None, "the worker has ended by itself"
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s"
        time.sleep(0.02)  # polling interval


def row_count(records: Database, table: Any) -> int:
    with records.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def stop(worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(WITHIN_S) == 0


def put_bin(s3: S3, number: int) -> None:
    """Upload a photo of class number % 7 and metadata with quantity number % 5, in alternating order."""
    photo = f"bin-images/{number:05}.jpg", jpeg(brightness_of(number % 7), side=300)
    metadata = f"metadata/{number:05}.json", json.dumps({"EXPECTED_QUANTITY": number % 5}).encode()
    for key, data in (photo, metadata) if number % 2 else (metadata, photo):
        s3.put(key, data)


def test_photos_become_records_and_comparisons(
    start: Start, s3: S3, sqlite_records: Database, messages_by_queue: Callable[[], dict[str, int]]
) -> None:
    for number in range(10):
        put_bin(s3, number)
    worker = start()
    for number in range(10, 20):
        put_bin(s3, number)
    s3.put("bin-images/broken.jpg", b"not a photo")
    s3.put("metadata/broken.json", b"not JSON")
    s3.put("notes.txt", b"neither")
    wait_until(lambda: row_count(sqlite_records, Count) == 21, worker)
    wait_until(lambda: row_count(sqlite_records, Expectation) == 21, worker)
    wait_until(lambda: not any(messages_by_queue().values()), worker)
    stop(worker)
    with sqlite_records.connect() as connection:
        counts = {row.key: row for row in connection.execute(select(Count.__table__))}
        compared = {row.bin_id: row for row in connection.execute(select(Comparison.__table__))}
    broken = counts.pop("bin-images/broken.jpg")
    assert (broken.reason, broken.predicted) == ("not_an_image", None)
    assert {key: row.predicted for key, row in counts.items()} == {f"bin-images/{n:05}.jpg": n % 7 for n in range(20)}
    assert {(row.model_version, row.width, row.reason) for row in counts.values()} == {("brightness-1", 300, None)}
    assert {bin_id: (row.predicted, row.expected, row.outcome) for bin_id, row in compared.items()} == {
        f"{n:05}": (n % 7, n % 5, outcome_of(n % 7, n % 5)) for n in range(20)
    }


def test_repeatedly_killed_worker(
    start: Start, s3: S3, sqlite_records: Database, messages_by_queue: Callable[[], dict[str, int]]
) -> None:
    """Workers are killed after every few photos; the next worker counts messages in flight, once."""
    photos = 90
    for number in range(photos):
        s3.put(f"{number:05}.jpg", jpeg(brightness_of(number % 7), side=1200))
    for recorded in (1, photos // 3, photos * 2 // 3):
        worker = start()
        wait_until(lambda recorded=recorded: row_count(sqlite_records, Count) >= recorded, worker)
        worker.kill()
        worker.wait()
    worker = start()
    wait_until(lambda: row_count(sqlite_records, Count) >= photos, worker)
    wait_until(lambda: not any(messages_by_queue().values()), worker)
    stop(worker)
    with sqlite_records.connect() as connection:
        rows = connection.execute(select(Count.key, Count.predicted).order_by(Count.key)).all()
    assert [tuple(row) for row in rows] == [(f"{n:05}.jpg", n % 7) for n in range(photos)]


def test_two_workers_and_one_is_stopped(
    start: Start, s3: S3, sqlite_records: Database, messages_by_queue: Callable[[], dict[str, int]]
) -> None:
    photos = 60
    first, second = start(), start()
    for number in range(photos):
        s3.put(f"{number:05}.jpg", jpeg(brightness_of(number % 7), side=600))
    wait_until(lambda: row_count(sqlite_records, Count) > 0)
    stop(first)
    wait_until(lambda: row_count(sqlite_records, Count) >= photos, second)
    wait_until(lambda: not any(messages_by_queue().values()), second)
    stop(second)
    with sqlite_records.connect() as connection:
        rows = connection.execute(select(Count.key, Count.predicted).order_by(Count.key)).all()
    assert [tuple(row) for row in rows] == [(f"{n:05}.jpg", n % 7) for n in range(photos)]


@pytest.fixture
def messages_in_flight(settings: Settings, sqs: Any) -> Callable[[], int]:
    """Return a function that counts messages in flight in both queues; they stay in flight for the whole test."""
    urls = [queue_url(sqs, name) for name in (settings.event_queue, settings.task_queue)]
    for url in urls:
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "300"})
    name = "ApproximateNumberOfMessagesNotVisible"

    def count() -> int:
        result = [sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name] for url in urls]
        return sum(map(int, result))

    return count


def test_tasks_of_a_stopped_worker_are_available_at_once(
    start: Start, s3: S3, sqlite_records: Database, messages_in_flight: Callable[[], int]
) -> None:
    """SIGTERM under load at random times, including while the worker requests more tasks."""
    photos, chance = 80, random.Random(11)
    for number in range(photos):
        s3.put(f"{number:05}.jpg", jpeg(brightness_of(number % 7), side=600))
    for _ in range(2):
        worker, before = start(), row_count(sqlite_records, Count)
        wait_until(lambda before=before: row_count(sqlite_records, Count) > before, worker)
        moment = time.monotonic() + chance.uniform(0, 0.3)
        wait_until(lambda moment=moment: time.monotonic() >= moment, worker)
        stop(worker)
        wait_until(lambda: messages_in_flight() == 0)
    assert row_count(sqlite_records, Count) < photos, "there was no load"


class TestWhileS3Refuses:
    @pytest.fixture
    def settings(self, settings: Settings, s3_proxy: Proxy) -> Settings:
        """Use settings that delay retries by at least half a minute."""
        return settings.model_copy(
            update={"s3_endpoint_url": f"http://127.0.0.1:{s3_proxy.port}", "retry_wait_s": 60.0, "s3_timeout_s": 1.0}
        )

    def test_held_tasks_of_a_stopped_worker_are_available_at_once(
        self, start: Start, s3: S3, s3_proxy: Proxy, messages_in_flight: Callable[[], int], tmp_path: Path
    ) -> None:
        worker = start()
        s3_proxy.refuse()
        for number in range(6):
            s3.put(f"{number:05}.jpg", jpeg(100))
        log = tmp_path / "worker-0.log"
        wait_until(
            lambda: log.read_text(errors="replace").count("] received") >= 2, worker
        )  # the second line is the retry
        assert messages_in_flight() > 0
        stop(worker)
        wait_until(lambda: messages_in_flight() == 0)


def test_worker_does_not_start_without_queues(settings: Settings) -> None:
    credentials = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    result = subprocess.run(
        [sys.executable, "-m", "worker", "run"],
        cwd=ROOT,
        env=process_environment(settings) | credentials,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == (
        f"error: queue '{settings.event_queue}' does not exist; create it with: python -m worker setup"
    )


def test_migrate_and_setup(settings: Settings, tmp_path: Path) -> None:
    """The two commands to set up a new machine."""
    environment = process_environment(settings) | {
        "BINWATCH_DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}",
        "BINWATCH_EVENT_QUEUE": f"{settings.event_queue}-new",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    for command in ("migrate", "setup"):
        subprocess.run([sys.executable, "-m", "worker", command], cwd=ROOT, env=environment, check=True, timeout=60)
    url = queue_url(sqs_client(settings), f"{settings.event_queue}-new")
    assert url.endswith(f"{settings.event_queue}-new")
    assert (tmp_path / "new.db").exists()


def test_all_output_is_json_lines(
    settings: Settings,
    s3: S3,
    sqs: Any,
    sqlite_records: Database,
    messages_by_queue: Callable[[], dict[str, int]],
    tmp_path: Path,
) -> None:
    """For worker and beat and any announced objects; the length of lines is limited."""
    settings = settings.model_copy(update={"log_format": LogFormat.JSON, "beat_file": tmp_path / "beat"})
    environment = process_environment(settings) | {
        name: value for name, value in os.environ.items() if name.startswith("AWS_")
    }
    log = tmp_path / "all.log"
    with log.open("wb") as output:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "worker", command], cwd=ROOT, env=environment, stdout=output, stderr=output
            )
            for command in ("run", "beat")
        ]
    queue = queue_url(sqs, settings.event_queue)
    good = json.dumps(
        {
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": s3.bucket}, "object": {"key": "a%0A%1B%5B31m.jpg"}},
        }
    )
    try:
        sqs.send_message(QueueUrl=queue, MessageBody='{"Records": [' + good + ",1" * 240_000 + "]}")
        sqs.send_message(QueueUrl=queue, MessageBody="\n\u009b31m" * 1000)
        wait_until(lambda: row_count(sqlite_records, Count) == 1, processes[0])
        wait_until(lambda: messages_by_queue()[settings.event_dead_letter_queue] == 2, processes[0])
        wait_until(lambda: b"beat: Starting" in log.read_bytes(), processes[1])
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(WITHIN_S)
    lines = log.read_bytes().splitlines()
    messages = [json.loads(line)["message"] for line in lines]
    assert f"binwatch {version()}: model brightness-1, int8 on CPUExecutionProvider" in messages
    assert any("ready." in message for message in messages)
    assert any("Warm shutdown" in message for message in messages)
    assert any("239,980 more records" in message for message in messages)
    assert max(map(len, lines)) < 20_000
