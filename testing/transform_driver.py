"""What SageMaker does with a transform job, since moto runs no containers: it starts the container's own entry point.

A model folder is unpacked, the process gets SageMaker's environment, /ping must answer within two seconds at a time and
before a deadline; each photo of the manifest is one request, with MaxConcurrentTransforms in flight, a limit for its
size and retries; each answer becomes a `.out` object. One photo without an answer marks the job as Failed, and the
others go on.
"""

from __future__ import annotations

import http.client
import io
import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.sagemaker.exceptions import ResourceInUseException
from moto.sagemaker.models import SageMakerModelBackend

ROOT = Path(__file__).parents[1]
PING_S = 2
START_S = 60
MB = 1_000_000
_LISTENING = re.compile(rb"listening on \S+ port (\d+)")


class JobFailed(Exception):
    """Why SageMaker marks a job as failed."""


@dataclass
class Faults:
    """What goes wrong in a job, as the test wants it."""

    before_photo: Callable[[str], object] = lambda key: None
    answers: int | None = None
    """The job fails after this number of requests."""
    cut_short: frozenset[str] = frozenset()
    """Keys whose answers are written only half."""
    status: str | None = None
    """The status that the job ends with, instead of its real one."""
    lost: Callable[[str], bool] = field(default=lambda key: False)
    """Keys whose answers are not written, though the job completes."""


class Container:
    """A serving container: its process, and the port that it listens on."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("BINWATCH_", "AWS_"))}
        ours = {"SERVE_HOST": "127.0.0.1", "SERVE_PORT": "0", "SAGEMAKER_FOLDER": str(folder)}
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            # SageMaker runs `IMAGE serve`; the image's entry point is `python -m worker`.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", "serve"],
                cwd=ROOT,
                env=clean | environment | {f"BINWATCH_{name}": value for name, value in ours.items()},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.port = self._await(self._port)
        self._await(self._ping)

    def invoke(self, connection: http.client.HTTPConnection, body: bytes, kind: str, accept: str) -> tuple[int, bytes]:
        connection.request("POST", "/invocations", body, {"Content-Type": kind, "Accept": accept})
        response = connection.getresponse()
        return response.status, response.read()

    def _await(self, ready: Callable[[], int | None]) -> int:
        deadline = time.monotonic() + START_S
        while (found := ready()) is None:
            if self.process.poll() is not None:
                raise JobFailed(f"the container ended with {self.process.returncode}: {self.log.read_text()[-500:]}")
            if time.monotonic() > deadline:
                self.process.kill()
                raise JobFailed("the container did not pass its health check in time")
            time.sleep(0.02)  # between two looks at the condition
        return found

    def _port(self) -> int | None:
        found = _LISTENING.search(self.log.read_bytes())
        return int(found[1]) if found else None

    def _ping(self) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PING_S)
        try:
            connection.request("GET", "/ping")
            return 200 if connection.getresponse().status == 200 else None
        except OSError:  # refused, reset, or no answer in time
            return None
        finally:
            connection.close()


class Containers:
    """Containers by model archive and environment. SageMaker starts one for each job; tests need not wait for each."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._numbers = itertools.count()
        self._running: dict[tuple[bytes, str], Container] = {}

    def get(self, archive: bytes, environment: dict[str, str]) -> Container:
        key = (archive, json.dumps(environment, sort_keys=True))
        if key not in self._running:
            folder = self._root / str(next(self._numbers))
            (folder / "model").mkdir(parents=True)
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(folder / "model", filter="data")
            self._running[key] = Container(folder, environment)
        return self._running[key]

    def stop(self) -> None:
        for container in self._running.values():
            container.process.send_signal(signal.SIGTERM)
        for container in self._running.values():
            assert container.process.wait(30) == 0, container.log.read_text()
        self._running.clear()


class TransformDriver:
    """Plays the transform jobs that moto is asked for, one after the other, on a thread of its own."""

    def __init__(self, s3: Any, containers: Containers) -> None:
        self.faults = Faults()
        self.jobs: list[str] = []
        """Names of the jobs that were started."""
        self.requests = 0
        self.may_play = threading.Event()
        self.may_play.set()
        self._s3 = s3
        self._containers = containers
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[tuple[SageMakerModelBackend, Any] | None] = queue.SimpleQueue()

    @contextmanager
    def playing(self) -> Iterator[TransformDriver]:
        """Moto's jobs are in progress until this has played them, as long as the context lasts."""
        create = SageMakerModelBackend.create_transform_job

        def create_in_progress(backend: SageMakerModelBackend, transform_job_name: str, **options: Any) -> Any:
            if transform_job_name in backend.transform_jobs:
                raise ResourceInUseException(message=f"Job name must be unique: {transform_job_name} already exists.")
            job = create(backend, transform_job_name=transform_job_name, **options)
            job.transform_job_status, job.transform_end_time = "InProgress", None
            self.jobs.append(transform_job_name)
            self._waiting.put((backend, job))
            return job

        SageMakerModelBackend.create_transform_job = create_in_progress
        thread = threading.Thread(target=self._run, name="sagemaker")
        thread.start()
        try:
            yield self
        finally:
            SageMakerModelBackend.create_transform_job = create
            self.may_play.set()
            self._waiting.put(None)
            thread.join()

    def _run(self) -> None:
        while (asked := self._waiting.get()) is not None:
            backend, job = asked
            self.may_play.wait()
            try:
                self._play(job, backend._models[job.model_name].primary_container)
                status, reason = self.faults.status or "Completed", ""
            except Exception as error:
                status, reason = "Failed", f"{error}"
            job.failure_reason = reason
            job.transform_end_time = datetime.now(UTC).replace(tzinfo=None)
            job.transform_job_status = status

    def _play(self, job: Any, model: dict[str, Any]) -> None:
        limits = {
            "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(job.max_concurrent_transforms),
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(job.max_payload_in_mb),
            "SAGEMAKER_BATCH": "true",
            "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
        }
        container = self._containers.get(self._get(model["ModelDataUrl"]), model["Environment"] | limits)
        first, *rest = json.loads(self._get(job.transform_input["DataSource"]["S3DataSource"]["S3Uri"]))
        failures: list[str] = []
        photos = iter(rest)
        with ThreadPoolExecutor(job.max_concurrent_transforms) as pool:
            done = [
                pool.submit(self._send_all, container, job, first["prefix"], photos, failures)
                for _ in range(job.max_concurrent_transforms)
            ]
            for thread in done:
                thread.result()
        if failures:
            raise JobFailed(f"Algorithm error for {len(failures)} photos, the first: {failures[0]}")

    def _send_all(
        self, container: Container, job: Any, prefix: str, photos: Iterator[str], failures: list[str]
    ) -> None:
        timeout = job.model_client_config["InvocationsTimeoutInSeconds"]
        connection = http.client.HTTPConnection("127.0.0.1", container.port, timeout=timeout)
        while True:
            with self._lock:
                name = next(photos, None)
                if name is None:
                    break
                if self.faults.answers is not None and self.requests >= self.faults.answers:
                    failures.append(f"{name}: the instance is gone")
                    continue
                self.requests += 1
            try:
                self._send(container, connection, job, prefix, name)
            except JobFailed as error:
                failures.append(f"{name}: {error}")
        connection.close()

    def _send(
        self, container: Container, connection: http.client.HTTPConnection, job: Any, prefix: str, name: str
    ) -> None:
        self.faults.before_photo(name)
        try:
            body = self._get(prefix + name)
        except Exception as error:
            raise JobFailed(f"cannot be read ({error})") from error
        if len(body) > job.max_payload_in_mb * MB:
            raise JobFailed(f"{len(body)} bytes are over MaxPayloadInMB")
        kind, accept = job.transform_input["ContentType"], job.transform_output["Accept"]
        for _ in range(1 + job.model_client_config["InvocationsMaxRetries"]):
            status, answer = container.invoke(connection, body, kind, accept)
            if status == 200:
                self._write(job, name, answer)
                return
        raise JobFailed(f"status {status}: {answer[:200]!r}")

    def _write(self, job: Any, name: str, answer: bytes) -> None:
        if self.faults.lost(name):
            return
        if name in self.faults.cut_short:
            answer = answer[: len(answer) // 2]
        bucket, key = _split(job.transform_output["S3OutputPath"])
        self._s3.put_object(Bucket=bucket, Key=f"{key.removesuffix('/')}/{name}.out", Body=answer)

    def _get(self, url: str) -> bytes:
        bucket, key = _split(url)
        body: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key
