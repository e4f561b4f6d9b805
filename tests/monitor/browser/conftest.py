"""Fixtures: a running monitor with real photos and counts, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from binwatch.settings import process_environment
from testing.services.chromium import chromium
from testing.services.s3 import S3
from tests.monitor.browser.warehouse import Warehouse, fill
from tests.monitor.conftest import Running, running_monitor

__all__ = ["TOKEN", "chromium"]

TOKEN = "a secret of the tests"


@pytest.fixture(scope="session")
def warehouse(
    tmp_path_factory: pytest.TempPathFactory, _migrated_file: Path, moto_url: str, _moto_client: Any
) -> Warehouse:
    """Count all sample photos once for all tests, which write to copies of the records."""
    s3 = S3(moto_url, "warehouse", _moto_client)
    _moto_client.create_bucket(Bucket=s3.bucket)
    records = shutil.copy(_migrated_file, tmp_path_factory.mktemp("warehouse") / "records.db")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        return fill(s3, records)


@pytest.fixture
def counted(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor of the warehouse on this test's copy of the records."""
    records = shutil.copy(warehouse.records, tmp_path / "records.db")
    settings = warehouse.settings.model_copy(update={"database_url": f"sqlite:///{records}", "monitor_token": TOKEN})
    for name, value in process_environment(settings).items():
        if name.startswith("BINWATCH_"):
            monkeypatch.setenv(name, value)
    with running_monitor() as running:
        running.services.drift.update()
        yield running
