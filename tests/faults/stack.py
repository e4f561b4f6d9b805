"""The stack under test: worker processes on RabbitMQ, PostgreSQL and S3, and the expected records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kombu.connection import Connection
from sqlalchemy import Engine as Database
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from binwatch.counts import outcome_of
from binwatch.records.tables import Comparison, ConfusionTotal, Count, PhotoTotal
from binwatch.settings import Settings, process_environment
from testing.brightness import brightness_of, jpeg
from testing.services.s3 import S3
from worker.brokers.base import DeadLetter
from worker.brokers.choice import choose_queues
from worker.brokers.rabbitmq.queues import dead_letter_queue, event_queue

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 60
CLASSES = 7

Worker = subprocess.Popen[bytes]


@dataclass
class Stack:
    """Uploads photos, announces them as versitygw does, runs workers, and tracks the expected records."""

    settings: Settings
    s3: S3
    records: Database
    folder: Path
    counted: dict[tuple[str, str], int | str] = field(default_factory=dict)
    """(key, ETag) → class that must be recorded, or reason of failure."""
    expected: dict[str, int] = field(default_factory=dict)
    """Bin id → quantity in its metadata file."""
    failed_before: list[str] = field(default_factory=list)
    """Reasons of failed photos that have been counted since: totals include both."""
    superseded: list[tuple[str, int, int]] = field(default_factory=list)
    """Comparisons (bin id, predicted, expected) that are superseded by a newer photo or quantity."""
    workers: list[Worker] = field(default_factory=list)
    started: int = 0
    """Number of processes started so far."""

    def photo(self, number: int, predicted: int | None = None) -> str:
        """Upload a photo of a bin, by default of class number % 7. Returns its event message."""
        key, predicted = f"bin-images/{number:05}.jpg", number % CLASSES if predicted is None else predicted
        etag = self.s3.put(key, jpeg(brightness_of(predicted), side=32))
        self.counted[key, etag] = predicted
        return announcement(self.s3.bucket, key, etag)

    def metadata(self, number: int, quantity: int) -> str:
        """Upload the metadata file of a bin. Returns its event message."""
        key = f"metadata/{number:05}.json"
        etag = self.s3.put(key, json.dumps({"EXPECTED_QUANTITY": quantity}).encode())
        self.expected[f"{number:05}"] = quantity
        return announcement(self.s3.bucket, key, etag)

    def publish(self, bodies: Iterable[str | bytes]) -> None:
        """Send event messages, with transient delivery mode as versitygw does."""
        with Connection(self.settings.broker_url.get_secret_value(), transport_options={"confirm_publish": True}) as c:
            dead = self.settings.event_dead_letter_queue
            for queue in (dead_letter_queue(dead), event_queue(self.settings.event_queue, dead)):
                queue(c.default_channel).declare()
            producer = c.Producer()
            for body in bodies:
                producer.publish(
                    body,
                    routing_key=self.settings.event_queue,
                    content_type="application/json",
                    content_encoding="utf-8" if isinstance(body, str) else "binary",
                    delivery_mode="transient",
                )

    def start(
        self, *, ready: bool = True, program: str | None = None, command: Sequence[str] = ("worker", "run")
    ) -> Worker:
        """Start a worker, or instead a Python program or another command, and wait until it is ready."""
        log = self.folder / f"worker-{self.started}.log"
        self.started += 1
        with log.open("wb") as output:
            arguments = ["-m", *command] if program is None else ["-c", program]
            worker = subprocess.Popen(
                [sys.executable, *arguments], stdout=output, stderr=subprocess.STDOUT, **self._process_options()
            )
        self.workers.append(worker)
        if ready:
            self.wait_until(lambda: " ready." in log.read_text(errors="replace"))
        return worker

    def kill(self, worker: Worker) -> None:
        """Kill a worker with SIGKILL."""
        self.workers.remove(worker)
        worker.kill()
        worker.wait()

    def stop(self, worker: Worker) -> None:
        """Stop a worker with SIGTERM. It must exit with status 0 within the grace period of 30 s."""
        self.workers.remove(worker)
        worker.send_signal(signal.SIGTERM)
        try:
            assert worker.wait(30) == 0
        finally:
            worker.kill()

    def reconcile(self) -> str:
        """Run `python -m worker reconcile`, and return its output."""
        result = subprocess.run(
            [sys.executable, "-m", "worker", "reconcile"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
            **self._process_options(),
        )
        return result.stdout

    def wait_until(self, condition: Callable[[], bool]) -> float:
        """Poll until the condition holds, and return the seconds that it took. Fails if a worker ends by itself."""
        began = time.monotonic()
        while not condition():
            assert all(worker.poll() is None for worker in self.workers), "a worker has ended by itself"
            assert time.monotonic() < began + TIMEOUT_S, f"not within {TIMEOUT_S} s"
            time.sleep(0.01)  # polling interval
        return time.monotonic() - began

    def recorded(self) -> int:
        """Number of recorded counts; 0 while the database is down."""
        try:
            with self.records.connect() as connection:
                return int(connection.scalar(select(func.count()).select_from(Count)) or 0)
        except OperationalError:  # the test has stopped the database
            return 0

    def settle(self) -> float:
        """Wait until every photo is recorded, stop the workers, and return the seconds that recording took."""
        try:
            seconds = self.wait_until(self._is_complete)
        except AssertionError:
            print(f"{self.recorded()} of {len(self.counted)} recorded, {self.waiting()} messages wait")
            raise
        self._drain()
        return seconds

    def check(self) -> None:
        """Check that every photo and comparison is recorded once and correctly, in the ledgers and the totals."""
        assert self._recorded_outcomes() == Counter((*photo, outcome) for photo, outcome in self.counted.items())
        with self.records.connect() as connection:
            photos = connection.execute(
                select(PhotoTotal.reason, func.sum(PhotoTotal.photos)).group_by(PhotoTotal.reason)
            ).all()
            compared = connection.execute(
                select(ConfusionTotal.predicted_class, ConfusionTotal.true_class, ConfusionTotal.comparisons)
            ).all()
        totals = {reason: int(count) for reason, count in photos}
        current_outcomes = (outcome if isinstance(outcome, str) else "" for outcome in self.counted.values())
        assert totals == Counter([*current_outcomes, *self.failed_before])
        expected = [*self._expected_comparisons(), *self.superseded]
        assert self._recorded_comparisons() == Counter(expected)
        outcomes = Counter[str]()
        for predicted, true, count in compared:
            outcomes[outcome_of(predicted, true)] += count
        assert outcomes == Counter(outcome_of(predicted, quantity) for _, predicted, quantity in expected)
        assert self.waiting(self.settings.task_queue + "-dead") == 0, "photos were dead-lettered"

    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters, as `python -m worker dead-letters` lists them."""
        return [letter for queue in choose_queues(self.settings).dead_letters() for letter in queue.messages()]

    def waiting(self, *queues: str) -> int:
        """Number of messages in the queues that are not in flight. Default: the event queue and the task queue."""
        with Connection(self.settings.broker_url.get_secret_value()) as connection:
            channel = connection.default_channel
            names = queues or (self.settings.event_queue, self.settings.task_queue)
            return sum(int(channel.queue_declare(name, passive=True).message_count) for name in names)

    def close(self) -> None:
        """Kill all workers, and print their logs, which pytest shows if the test failed."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        for log in sorted(self.folder.glob("worker-*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")

    def _is_complete(self) -> bool:
        try:
            photos, compared = self._recorded_outcomes(), self._recorded_comparisons()
        except OperationalError:
            return False
        expected = {(*photo, outcome) for photo, outcome in self.counted.items()}
        return photos.keys() >= expected and compared.keys() >= set(self._expected_comparisons())

    def _drain(self) -> None:
        """Stop the workers, and run more until messages that return to their queues are processed as well."""
        self.wait_until(lambda: self.waiting() == 0)
        while self.workers:
            self.stop(self.workers[0])
        while self.waiting():
            self.start()
            self.wait_until(lambda: self.waiting() == 0)
            self.stop(self.workers[0])

    def _recorded_outcomes(self) -> Counter[tuple[str, str, int | str]]:
        with self.records.connect() as connection:
            rows = connection.execute(select(Count.key, Count.etag, Count.reason, Count.predicted))
            return Counter((key, etag, reason or predicted) for key, etag, reason, predicted in rows)

    def _recorded_comparisons(self) -> Counter[tuple[str, int, int]]:
        with self.records.connect() as connection:
            rows = connection.execute(select(Comparison.bin_id, Comparison.predicted, Comparison.expected))
            return Counter(map(tuple, rows))

    def _expected_comparisons(self) -> list[tuple[str, int, int]]:
        """(bin id, predicted, expected) of each bin with a count and an expected quantity."""
        latest = {Path(key).stem: outcome for (key, _), outcome in self.counted.items()}
        return [
            (bin_id, predicted, self.expected[bin_id])
            for bin_id, predicted in latest.items()
            if bin_id in self.expected and isinstance(predicted, int)
        ]

    def _process_options(self) -> dict[str, Any]:
        credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        return {"cwd": ROOT, "env": process_environment(self.settings) | credentials}


def announcement(bucket: str, key: str, etag: str) -> str:
    """An event message as versitygw 1.7 writes it."""
    owner = {"PrincipalId": "binwatch"}
    record = {
        "eventVersion": "2.2",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": datetime.now(UTC).isoformat(timespec="seconds"),
        "eventName": "s3:ObjectCreated:Put",
        "userIdentity": owner,
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "rabbitmq-global",
            "bucket": {"name": bucket, "ownerIdentity": owner, "arn": f"arn:aws:s3:::/{bucket}/{key}"},
            "object": {"key": key, "size": 1, "eTag": etag, "versionId": None, "sequencer": "0000000000000001"},
        },
    }
    return json.dumps({"Records": [record]})
