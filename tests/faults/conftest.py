"""Fixtures of the fault tests, and the table of recovery times."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from binwatch.records.engine import connect
from binwatch.settings import EventSource, Settings
from testing.brightness import write_brightness_bundle
from testing.services.faulty_sqs import FaultySqs
from testing.services.proxy import Proxy
from testing.services.rabbitmq import RabbitMQ
from testing.services.s3 import S3
from tests.faults.sqs_stack import SqsStack
from tests.faults.stack import Stack
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.queues import sqs_client

RECOVERY_TIMES = pytest.StashKey[dict[str, str]]()

Took = Callable[[str], None]


@pytest.fixture(scope="session")
def _bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brightness_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def stack(
    tmp_path: Path, s3: S3, s3_proxy: Proxy, rabbitmq: RabbitMQ, postgres_url: str, _bundle: Path
) -> Iterator[Stack]:
    """A stack with its own queues and records. Groups are small, so that many are in flight when a fault occurs."""
    settings = _settings(tmp_path, s3, postgres_url, _bundle).model_copy(
        update={
            "s3_endpoint_url": f"http://127.0.0.1:{s3_proxy.port}",
            "broker_url": SecretStr(rabbitmq.url),
            "event_source": EventSource.RABBITMQ,
        }
    )
    records = connect(postgres_url)
    stack = Stack(settings, s3, records, tmp_path)
    yield stack
    stack.close()
    records.dispose()


def _settings(folder: Path, s3: S3, postgres_url: str, bundle: Path) -> Settings:
    name = uuid.uuid4().hex[:12]
    return Settings(
        bucket=s3.bucket,
        s3_endpoint_url=s3.endpoint_url,
        s3_timeout_s=5,
        event_queue=f"events-{name}",
        event_dead_letter_queue=f"events-{name}-dead",
        task_queue=f"tasks-{name}",
        database_url=SecretStr(postgres_url),
        model_dir=bundle,
        model_cache=folder / "models",
        inference_threads=1,
        fetch_threads=2,
        worker_concurrency=2,
        retry_wait_s=0.1,
        reconcile_grace_s=0,
        group_photos=8,
        group_wait_ms=50,
    )


@pytest.fixture
def sqs_stack(tmp_path: Path, s3: S3, faulty_sqs: FaultySqs, postgres_url: str, _bundle: Path) -> Iterator[SqsStack]:
    """The same stack with queues on SQS."""
    settings = _settings(tmp_path, s3, postgres_url, _bundle).model_copy(
        update={
            "broker_url": SecretStr(f"sqs://testing:testing@127.0.0.1:{faulty_sqs.port}//"),
            "sqs_endpoint_url": faulty_sqs.endpoint_url,
            "event_source": EventSource.SQS,
        }
    )
    client = sqs_client(settings.model_copy(update={"sqs_endpoint_url": s3.endpoint_url}))
    choose_queues(settings).create()
    records = connect(postgres_url)
    stack = SqsStack(settings, s3, records, tmp_path)
    stack.client = client
    yield stack
    stack.close()
    records.dispose()


@pytest.fixture
def took(request: pytest.FixtureRequest) -> Took:
    """A function that notes how long a recovery took, for the summary at the end. No test asserts a time."""

    def note(text: str) -> None:
        request.config.stash.setdefault(RECOVERY_TIMES, {})[request.node.name] = text

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how long each recovery took."""
    times = config.stash.get(RECOVERY_TIMES, {})
    if times:
        terminalreporter.section("recovery")
        for name, text in times.items():
            terminalreporter.line(f"{name}: {text}")
