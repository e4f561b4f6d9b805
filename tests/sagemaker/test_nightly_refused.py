"""Tests of requests that AWS refuses, and of jobs that take too long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from sqlalchemy import Engine as Database

from binwatch.errors import BinwatchError
from binwatch.objects import Objects
from binwatch.sagemaker.requests import AwsError, QuotaError
from binwatch.settings import Settings
from testing.services.s3 import S3
from testing.transform_driver import TransformDriver
from tests.sagemaker.nights import LocalCounter, finish, on_sagemaker, put_photos, rows
from worker.sagemaker.nightly.run import Nightly


class RefusingClient:
    """A boto3 client whose requests for one operation are refused, as AWS would."""

    def __init__(self, client: Any, operation: str, code: str, message: str) -> None:
        self._client = client
        self._operation = operation
        self._error = ClientError({"Error": {"Code": code, "Message": message}}, operation)

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name == self._operation else getattr(self._client, name)

    def _refuse(self, **_: Any) -> None:
        raise self._error


ROLE_MESSAGE = "Could not assume role arn:aws:iam::123456789012:role/binwatch"


@pytest.mark.parametrize(
    ("operation", "code", "message", "explanation"),
    [
        (
            "create_model",
            "ValidationException",
            ROLE_MESSAGE,
            "BINWATCH_SAGEMAKER_ROLE is not set .*; see its trust policy",
        ),
        ("create_model", "AccessDeniedException", "no iam:PassRole", "not allowed: no iam:PassRole"),
        (
            "create_transform_job",
            "ResourceLimitExceeded",
            "0 Instances",
            "a quota of the account is used up: 0 Instances",
        ),
        ("create_transform_job", "ThrottlingException", "Rate exceeded", "refused too many requests"),
        ("describe_transform_job", "ExpiredTokenException", "expired", "credentials are expired or unknown in region"),
    ],
)
def test_refused_requests_are_explained_and_retried(
    nightly: Nightly,
    s3: S3,
    driver: TransformDriver,
    sqlite_records: Database,
    operation: str,
    code: str,
    message: str,
    explanation: str,
) -> None:
    put_photos(s3, 2)
    run = nightly.start()
    client = nightly.jobs._client
    nightly.jobs._client = RefusingClient(client, operation, code, message)
    with pytest.raises(AwsError, match=explanation) as refused:
        nightly.advance(run)
    assert run.sagemaker_model in str(refused.value) or run.jobs[0] in str(refused.value)
    assert isinstance(refused.value, QuotaError) == (code == "ResourceLimitExceeded")
    nightly.jobs._client = client
    finish(nightly, run)
    assert len(rows(sqlite_records)) == 6


def test_run_waits_for_quota_used_by_its_other_job(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: LocalCounter
) -> None:
    nightly = Nightly(on_sagemaker(settings, job_photos=4), Objects(settings), sqlite_records, local)
    put_photos(s3, 4)
    driver.may_run_jobs.clear()
    run = nightly.start()
    client = nightly.jobs._client
    start = nightly.jobs.start

    def one_at_a_time(name: str, model: str, **urls: str) -> None:
        if nightly.running_jobs(run):
            nightly.jobs._client = RefusingClient(client, "create_transform_job", "ResourceLimitExceeded", "1 instance")
        try:
            start(name, model, **urls)
        finally:
            nightly.jobs._client = client

    nightly.jobs.start = one_at_a_time  # type: ignore[method-assign]
    assert nightly.advance(run).ended is None
    assert driver.jobs == run.jobs[:1]
    driver.may_run_jobs.set()
    finish(nightly, run)
    assert driver.jobs == run.jobs
    assert (len(rows(sqlite_records)), local.keys) == (8, [])


def test_job_over_time_limit_is_stopped(
    settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: LocalCounter
) -> None:
    nightly = Nightly(on_sagemaker(settings, job_hours=1e-9), Objects(settings), sqlite_records, local)
    put_photos(s3, 1)
    driver.may_run_jobs.clear()
    stopped: list[str] = []
    nightly.jobs.stop = stopped.append  # type: ignore[method-assign]  # moto cannot stop jobs
    run = nightly.start()
    nightly.advance(run)
    nightly.advance(run)
    assert stopped == run.jobs


def test_run_needs_role_and_image(settings: Settings, sqlite_records: Database, local: LocalCounter) -> None:
    incomplete = on_sagemaker(settings, role=None, image=None)
    with pytest.raises(
        BinwatchError, match=r"BINWATCH_SAGEMAKER_ROLE is not set .*; BINWATCH_SAGEMAKER_IMAGE is not set"
    ):
        Nightly(incomplete, Objects(incomplete), sqlite_records, local)


def test_missing_credentials(
    settings: Settings,
    s3: S3,
    sqlite_records: Database,
    local: LocalCounter,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    put_photos(s3, 1)
    objects = Objects(settings)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # the session caches credentials
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    nightly = Nightly(settings, objects, sqlite_records, local)
    run = nightly.start()
    with pytest.raises(AwsError, match="no AWS credentials"):
        nightly.advance(run)


def test_wrong_region(
    settings: Settings, s3: S3, sqlite_records: Database, local: LocalCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("binwatch.sagemaker.requests._MAX_ATTEMPTS", 1)
    put_photos(s3, 1)
    unreachable = on_sagemaker(settings, endpoint_url="http://127.0.0.1:9").model_copy(
        update={"region": "mars-north-1"}
    )
    nightly = Nightly(unreachable, Objects(settings), sqlite_records, local)
    with pytest.raises(AwsError, match="cannot be reached in region 'mars-north-1'"):
        nightly.advance(nightly.start())
