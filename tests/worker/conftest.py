"""Fixtures of the worker tests: a bundle with known predictions and settings for moto's server and SQLite."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine as Database

from binwatch.settings import Settings
from testing.brightness import write_brightness_bundle
from testing.services.s3 import S3


@pytest.fixture(scope="session")
def brightness_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bundle that counts by brightness."""
    return write_brightness_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def settings(tmp_path: Path, s3: S3, sqlite_records: Database, brightness_bundle: Path) -> Settings:
    """Return the settings of a worker on moto's S3 and SQS, with separate queues and records for each test."""
    name = uuid.uuid4().hex[:12]
    return Settings(
        bucket=s3.bucket,
        s3_endpoint_url=s3.endpoint_url,
        s3_timeout_s=5,
        sqs_endpoint_url=s3.endpoint_url,
        broker_url=SecretStr(s3.endpoint_url.replace("http://", "sqs://testing:testing@") + "//"),
        event_queue=f"events-{name}",
        event_dead_letter_queue=f"events-{name}-dead",
        task_queue=f"tasks-{name}",
        database_url=SecretStr(str(sqlite_records.url)),
        model_dir=brightness_bundle,
        inference_threads=1,
        fetch_threads=4,
        worker_concurrency=2,
        retry_wait_s=0.1,
        group_photos=8,
        group_wait_ms=50,
        model_settle_s=0,
    )


@pytest.fixture
def closed_url() -> Iterator[str]:
    """Return a URL that refuses connections: the port is bound, so that nobody else takes it, but nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
