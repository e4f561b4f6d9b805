"""Runs SageMaker transform jobs for moto, which runs no containers: starts the serving container's own entry point.

As in SageMaker, the model archive is unpacked, the process gets SageMaker's environment, and /ping must succeed before
a deadline, with a time-out of two seconds for each attempt. Each photo of the manifest is one request, with a size
limit and retries, and MaxConcurrentTransforms are in flight. Each answer becomes a `.out` object. If a photo gets no
successful answer, the job is marked as Failed, but the other photos are still sent.
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
PING_TIMEOUT_S = 2
START_TIMEOUT_S = 60
MB = 1_000_000
_LISTENING = re.compile(rb"listening on \S+ port (\d+)")


class JobFailed(Exception):
    """The reason why SageMaker marks a job as failed."""


@dataclass
class Faults:
    """Faults that a test injects into a job."""

    before_photo: Callable[[str], object] = lambda key: None
    max_requests: int | None = None
    """After this number of requests, all other photos fail, as if the instance were gone."""
    truncated: frozenset[str] = frozenset()
    """Keys for which only half of the answer is written."""
    status: str | None = None
    """Final status of the job, instead of its real one."""
    lost: Callable[[str], bool] = field(default=lambda key: False)
    """Whether the answer for a key is not written, although the job completes."""


class Container:
    """A serving container: its process and the port it listens on."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BINWATCH_", "AWS_"))}
        settings = {"SERVE_HOST": "127.0.0.1", "SERVE_PORT": "0", "SAGEMAKER_FOLDER": str(folder)}
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            # SageMaker runs `IMAGE serve`; the image's entry point is `python -m worker`.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", "serve"],
                cwd=ROOT,
                env=inherited | environment | {f"BINWATCH_{name}": value for name, value in settings.items()},
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
        deadline = time.monotonic() + START_TIMEOUT_S
        while (result := ready()) is None:
            if self.process.poll() is not None:
                raise JobFailed(f"the container ended with {self.process.returncode}: {self.log.read_text()[-500:]}")
            if time.monotonic() > deadline:
                self.process.kill()
                raise JobFailed("the container did not pass its health check in time")
            time.sleep(0.02)  # polling interval
        return result

    def _port(self) -> int | None:
        match = _LISTENING.search(self.log.read_bytes())
        return int(match[1]) if match else None

    def _ping(self) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PING_TIMEOUT_S)
        try:
            connection.request("GET", "/ping")
            return 200 if connection.getresponse().status == 200 else None
        except OSError:  # refused, reset, or no answer in time
            return None
        finally:
            connection.close()


class Containers:
    """Running containers by model archive and environment. Jobs share them; SageMaker starts its own for each job."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder_numbers = itertools.count()
        self._running: dict[tuple[bytes, str], Container] = {}

    def get(self, archive: bytes, environment: dict[str, str]) -> Container:
        key = (archive, json.dumps(environment, sort_keys=True))
        if key not in self._running:
            folder = self._root / str(next(self._folder_numbers))
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
    """Runs the transform jobs that are created in moto, one after the other, in a thread."""

    def __init__(self, s3: Any, containers: Containers) -> None:
        self.faults = Faults()
        self.jobs: list[str] = []
        """Names of the created jobs."""
        self.requests = 0
        self.may_run_jobs = threading.Event()
        self.may_run_jobs.set()
        self._s3 = s3
        self._containers = containers
        self._lock = threading.Lock()
        self._job_queue: queue.SimpleQueue[tuple[SageMakerModelBackend, Any] | None] = queue.SimpleQueue()

    @contextmanager
    def running(self) -> Iterator[TransformDriver]:
        """Within the context, jobs created in moto are in progress until this driver has run them."""
        create = SageMakerModelBackend.create_transform_job

        def create_in_progress(backend: SageMakerModelBackend, transform_job_name: str, **options: Any) -> Any:
            if transform_job_name in backend.transform_jobs:
                raise ResourceInUseException(message=f"Job name must be unique: {transform_job_name} already exists.")
            job = create(backend, transform_job_name=transform_job_name, **options)
            job.transform_job_status, job.transform_end_time = "InProgress", None
            self.jobs.append(transform_job_name)
            self._job_queue.put((backend, job))
            return job

        SageMakerModelBackend.create_transform_job = create_in_progress
        thread = threading.Thread(target=self._run, name="sagemaker")
        thread.start()
        try:
            yield self
        finally:
            SageMakerModelBackend.create_transform_job = create
            self.may_run_jobs.set()
            self._job_queue.put(None)
            thread.join()

    def _run(self) -> None:
        while (queued := self._job_queue.get()) is not None:
            backend, job = queued
            self.may_run_jobs.wait()
            try:
                self._run_job(job, backend._models[job.model_name].primary_container)
                status, reason = self.faults.status or "Completed", ""
            except Exception as error:
                status, reason = "Failed", f"{error}"
            job.failure_reason = reason
            job.transform_end_time = datetime.now(UTC).replace(tzinfo=None)
            job.transform_job_status = status

    def _run_job(self, job: Any, model: dict[str, Any]) -> None:
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
            senders = [
                pool.submit(self._send_all, container, job, first["prefix"], photos, failures)
                for _ in range(job.max_concurrent_transforms)
            ]
            for sender in senders:
                sender.result()
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
                if self.faults.max_requests is not None and self.requests >= self.faults.max_requests:
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
        if name in self.faults.truncated:
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
