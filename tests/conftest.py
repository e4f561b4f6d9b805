"""Fixtures that every test may use: a clean environment, records on SQLite, the sample photos."""

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

NO_ONE = "http://127.0.0.1:9"  # where boto3 goes if a test names no endpoint: no one listens there
_NETWORK = {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"}
ROOT = Path(__file__).parent.parent

# Whoever starts the tests in the background makes them ignore Ctrl-C, and with them the commands that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, so that a failure is the change's own; --hypothesis-profile=fuzz looks for new ones.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=2000)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them, and no call can reach a real AWS account."""
    for name in list(os.environ):
        if name.startswith(("BINWATCH_", "AWS_")) or name.upper() in _NETWORK:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", NO_ONE)


@pytest.fixture(scope="session")
def _migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty records to copy, which is quicker than migrating for each test."""
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
