"""Fixtures for all tests: a clean environment and empty records in SQLite."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from sqlalchemy import Engine

from binwatch.records.engine import connect
from binwatch.records.migrate import migrate

pytest_plugins = [
    "testing.services.postgres",
    "testing.services.pgbouncer",
    "testing.services.proxy",
    "testing.services.rabbitmq",
    "testing.services.s3",
    "testing.services.faulty_s3",
    "testing.services.faulty_sqs",
]

UNREACHABLE_URL = "http://127.0.0.1:9"  # boto3's default endpoint in tests: nothing listens there
_NETWORK = {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"}
ROOT = Path(__file__).parent.parent

# Processes started in the background ignore Ctrl-C and pass that on to the commands that the tests interrupt: reset it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, so that only a code change causes a failure; --hypothesis-profile=fuzz tries new ones.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=2000)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the user's settings from the environment and prevent calls to a real AWS account."""
    for name in list(os.environ):
        if name.startswith(("BINWATCH_", "AWS_")) or name.upper() in _NETWORK:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", UNREACHABLE_URL)


@pytest.fixture(scope="session")
def _migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty migrated database to copy, which is faster than migrating in each test."""
    path = tmp_path_factory.mktemp("records") / "migrated.db"
    engine = connect(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@pytest.fixture
def sqlite_records(tmp_path: Path, _migrated_file: Path) -> Iterator[Engine]:
    """Empty records in a SQLite file."""
    path = shutil.copy(_migrated_file, tmp_path / "records.db")
    engine = connect(f"sqlite:///{path}")
    yield engine
    engine.dispose()
