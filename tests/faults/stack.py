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
WITHIN_S = 60
CLASSES = 7

Worker = subprocess.Popen[bytes]


@dataclass
class Stack:
    """Puts photos, announces them as versitygw does, runs workers, and knows what they must have recorded."""

    settings: Settings
    s3: S3
    records: Database
    folder: Path
    counted: dict[tuple[str, str], int | str] = field(default_factory=dict)
    """(key, ETag) → the class that must be recorded, or the reason why there is none."""
    expected: dict[str, int] = field(default_factory=dict)
    """Bin → the quantity that its metadata file says."""
    failed_before: list[str] = field(default_factory=list)
    """Why photos failed that have been counted since: totals keep both."""
    superseded: list[tuple[str, int, int]] = field(default_factory=list)
    """Comparisons (bin, predicted, expected) that were right until a newer photo or quantity came."""
    workers: list[Worker] = field(default_factory=list)
    started: int = 0

    def photo(self, number: int, predicted: int | None = None) -> str:
        """Put a photo of a bin, of class number % 7 unless told; returns the event message that announces it."""
        key, predicted = f"bin-images/{number:05}.jpg", number % CLASSES if predicted is None else predicted
        etag = self.s3.put(key, jpeg(brightness_of(predicted), side=32))
        self.counted[key, etag] = predicted
        return announcement(self.s3.bucket, key, etag)

    def metadata(self, number: int, quantity: int) -> str:
        """Put the metadata file of a bin; returns the event message that announces it."""
        key = f"metadata/{number:05}.json"
        etag = self.s3.put(key, json.dumps({"EXPECTED_QUANTITY": quantity}).encode())
        self.expected[f"{number:05}"] = quantity
        return announcement(self.s3.bucket, key, etag)

    def publish(self, bodies: Iterable[str | bytes]) -> None:
        """Send event messages, marked as transient as versitygw's are."""
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
        """Start a worker, or a program in Python or another command in its place, and wait until it is ready."""
        log = self.folder / f"worker-{self.started}.log"
        self.started += 1
        with log.open("wb") as output:
            arguments = ["-m", *command] if program is None else ["-c", program]
            worker = subprocess.Popen(
                [sys.executable, *arguments], stdout=output, stderr=subprocess.STDOUT, **self._where()
            )
        self.workers.append(worker)
        if ready:
            self.wait_until(lambda: " ready." in log.read_text(errors="replace"))
        return worker

    def kill(self, worker: Worker) -> None:
        """SIGKILL: no goodbye."""
        self.workers.remove(worker)
        worker.kill()
        worker.wait()

    def stop(self, worker: Worker) -> None:
        """TERM; the worker must end in good order, within the grace period of 30 s."""
        self.workers.remove(worker)
        worker.send_signal(signal.SIGTERM)
        try:
            assert worker.wait(30) == 0
        finally:
            worker.kill()

    def reconcile(self) -> str:
        """`python -m worker reconcile`; returns what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "worker", "reconcile"],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=True,
            **self._where(),
        )
        return done.stdout

    def wait_until(self, condition: Callable[[], bool]) -> float:
        """Look until it is so; returns the seconds that it took. A worker that ends by itself is an error."""
        begun = time.monotonic()
        while not condition():
            assert all(worker.poll() is None for worker in self.workers), "a worker has ended by itself"
            assert time.monotonic() < begun + WITHIN_S, f"not within {WITHIN_S} s"
            time.sleep(0.01)  # between two looks at the condition
        return time.monotonic() - begun

    def recorded(self) -> int:
        """Photos with a record."""
        try:
            with self.records.connect() as connection:
                return int(connection.scalar(select(func.count()).select_from(Count)) or 0)
        except OperationalError:  # the database is down, as a test wanted it
            return 0

    def settle(self) -> float:
        """Wait until every photo is accounted for; returns the seconds that it took."""
        try:
            seconds = self.wait_until(self._complete)
        except AssertionError:
            print(f"{self.recorded()} of {len(self.counted)} recorded, {self.waiting()} messages wait")
            raise
        self._drain()
        return seconds

    def check(self) -> None:
        """Every photo and every comparison is recorded once, with the right values, in the ledgers and the totals."""
        assert self._outcomes() == Counter((*photo, outcome) for photo, outcome in self.counted.items())
        with self.records.connect() as connection:
            photos = connection.execute(
                select(PhotoTotal.reason, func.sum(PhotoTotal.photos)).group_by(PhotoTotal.reason)
            ).all()
            compared = connection.execute(
                select(ConfusionTotal.predicted_class, ConfusionTotal.true_class, ConfusionTotal.comparisons)
            ).all()
        totals = {reason: int(number) for reason, number in photos}
        outcomes_now = (outcome if isinstance(outcome, str) else "" for outcome in self.counted.values())
        assert totals == Counter([*outcomes_now, *self.failed_before])
        wanted = [*self._comparisons(), *self.superseded]
        assert self._compared() == Counter(wanted)
        outcomes = Counter[str]()
        for predicted, true, number in compared:
            outcomes[outcome_of(predicted, true)] += number
        assert outcomes == Counter(outcome_of(predicted, quantity) for _, predicted, quantity in wanted)
        assert self.waiting(self.settings.task_queue + "-dead") == 0, "photos were dead-lettered"

    def dead_letters(self) -> list[DeadLetter]:
        """What `python -m worker dead-letters` lists."""
        return [letter for queue in choose_queues(self.settings).dead_letters() for letter in queue.messages()]

    def waiting(self, *queues: str) -> int:
        """Messages in the queues (the event queue and the task queue unless told) that are not in flight."""
        with Connection(self.settings.broker_url.get_secret_value()) as connection:
            channel = connection.default_channel
            names = queues or (self.settings.event_queue, self.settings.task_queue)
            return sum(int(channel.queue_declare(name, passive=True).message_count) for name in names)

    def close(self) -> None:
        """End all workers, and show what they said: pytest prints it if the test failed."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        for log in sorted(self.folder.glob("worker-*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")

    def _complete(self) -> bool:
        try:
            photos, compared = self._outcomes(), self._compared()
        except OperationalError:
            return False
        wanted = {(*photo, outcome) for photo, outcome in self.counted.items()}
        return photos.keys() >= wanted and compared.keys() >= set(self._comparisons())

    def _drain(self) -> None:
        """Stop the workers. What they had in flight comes back to its queue and must go away, too, leaving no trace."""
        self.wait_until(lambda: self.waiting() == 0)
        while self.workers:
            self.stop(self.workers[0])
        while self.waiting():
            self.start()
            self.wait_until(lambda: self.waiting() == 0)
            self.stop(self.workers[0])

    def _outcomes(self) -> Counter[tuple[str, str, int | str]]:
        with self.records.connect() as connection:
            rows = connection.execute(select(Count.key, Count.etag, Count.reason, Count.predicted))
            return Counter((key, etag, reason or predicted) for key, etag, reason, predicted in rows)

    def _compared(self) -> Counter[tuple[str, int, int]]:
        with self.records.connect() as connection:
            rows = connection.execute(select(Comparison.bin_id, Comparison.predicted, Comparison.expected))
            return Counter(map(tuple, rows))

    def _comparisons(self) -> list[tuple[str, int, int]]:
        """(bin, predicted, expected) of each bin with a count and an expected quantity."""
        latest = {Path(key).stem: outcome for (key, _), outcome in self.counted.items()}
        return [
            (bin_id, predicted, self.expected[bin_id])
            for bin_id, predicted in latest.items()
            if bin_id in self.expected and isinstance(predicted, int)
        ]

    def _where(self) -> dict[str, Any]:
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
