"""Fixtures for tests against SageMaker: moto for its API, and the transform driver for what moto does not simulate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine as Database

from binwatch.objects import Objects
from binwatch.sagemaker.settings import SagemakerSettings
from binwatch.settings import Settings
from testing.brightness import write_brightness_bundle
from testing.services.aws_shapes import check_every_request
from testing.services.s3 import S3
from testing.transform_driver import Containers, TransformDriver
from tests.sagemaker.nights import LocalCounter
from worker.sagemaker.nightly.run import Nightly


@pytest.fixture(autouse=True)
def _validate_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    check_every_request(monkeypatch)


@pytest.fixture(scope="session")
def brightness_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle that counts by brightness."""
    return write_brightness_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Serving containers, started when a job first needs them. All must exit with status 0."""
    containers = Containers(tmp_path_factory.mktemp("opt-ml"))
    yield containers
    containers.stop()


@pytest.fixture
def driver(s3: S3, containers: Containers) -> Iterator[TransformDriver]:
    """Runs every transform job that is created during the test."""
    with TransformDriver(s3.client, containers).running() as driver:
        yield driver


@pytest.fixture
def settings(s3: S3, sqlite_records: Database, brightness_bundle: Path, tmp_path: Path) -> Settings:
    """Settings for a nightly run on moto's SageMaker."""
    return settings_for(s3, str(sqlite_records.url), brightness_bundle, tmp_path)


@pytest.fixture
def local(settings: Settings) -> Iterator[LocalCounter]:
    """Counts photos that a nightly run leaves to local workers."""
    local = LocalCounter(settings)
    yield local
    local.close()


@pytest.fixture
def nightly(settings: Settings, sqlite_records: Database, local: LocalCounter) -> Nightly:
    """Starts and advances nightly runs on SageMaker."""
    return Nightly(settings, Objects(settings), sqlite_records, local)


def settings_for(s3: S3, database_url: str, bundle: Path, folder: Path) -> Settings:
    """Settings for a nightly run of this bucket with these records."""
    return Settings(
        bucket=s3.bucket,
        s3_endpoint_url=s3.endpoint_url,
        sqs_endpoint_url=s3.endpoint_url,
        broker_url=SecretStr(s3.endpoint_url.replace("http://", "sqs://testing:testing@") + "//"),
        database_url=SecretStr(database_url),
        model_dir=bundle,
        model_cache=folder / "cache",
        sagemaker=SagemakerSettings(
            endpoint_url=s3.endpoint_url,
            role="arn:aws:iam::123456789012:role/binwatch",
            image="123456789012.dkr.ecr.us-east-1.amazonaws.com/binwatch-worker:1",
            price_per_hour=0.23,
        ),
        nightly_poll_s=1,
        reconcile_grace_s=0,
        inference_threads=1,
        fetch_threads=4,
        retry_wait_s=0.01,
    )
