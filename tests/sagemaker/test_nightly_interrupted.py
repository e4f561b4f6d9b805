"""Tests of nightly runs that are killed, started twice, or continued by several processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine as Database

from binwatch.errors import BinwatchError
from binwatch.objects import Objects
from binwatch.records.engine import connect
from binwatch.settings import Settings
from testing.brightness import brightness_of, jpeg
from testing.services.s3 import S3
from testing.transform_driver import Faults, TransformDriver
from tests.sagemaker.conftest import settings_for
from tests.sagemaker.nights import LocalCounter, finish, models_of, put_photos, remaining_keys, rows
from worker.sagemaker.nightly.run import Nightly
from worker.sagemaker.nightly.run_store import NightlyRun


class Killed(BaseException):
    """Simulates the end of the process."""


def kill_after(nightly: Nightly, operations: int) -> None:
    """Raise Killed after a number of operations with an effect outside of the process."""
    remaining = [operations]

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            result = call(*args, **options)
            remaining[0] -= 1
            if remaining[0] == 0:
                raise Killed
            return result

        return counted

    for target, names in (
        (nightly._objects, ("put", "put_if_absent", "delete")),
        (nightly.jobs, ("make_model", "start", "delete_model")),
        (nightly._ingest._store, ("add_counts",)),
        (nightly._ingest, ("_recount",)),
    ):
        for name in names:
            setattr(target, name, wrap(getattr(target, name)))


def test_run_killed_after_each_step_is_continued(
    s3: S3,
    driver: TransformDriver,
    brightness_bundle: Path,
    sqlite_records: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each record exists once, there is one job, and no files are left behind."""
    monkeypatch.setattr("worker.sagemaker.nightly.run._ABANDONED_AGE", timedelta(0))
    lost = "bin-images/00001.jpg"
    driver.faults = Faults(lost=lambda key: key == lost)
    empty = str(sqlite_records.url.database)
    steps = 0
    while True:
        steps += 1
        folder = tmp_path / str(steps)
        folder.mkdir()
        bucket = S3(s3.endpoint_url, f"{s3.bucket}-{steps}", s3.client)
        bucket.client.create_bucket(Bucket=bucket.bucket)
        database = connect(f"sqlite:///{shutil.copy(empty, folder / 'records.db')}")
        settings = settings_for(bucket, str(database.url), brightness_bundle, folder)
        put_photos(bucket, 3)
        bucket.put("odd key.jpg", jpeg(brightness_of(6)))
        driver.jobs.clear()
        killed = run_until_killed(settings, database, steps)
        local = LocalCounter(settings)
        continued = Nightly(settings, Objects(settings), database, local)
        run = continued.start()
        if run is not None:
            finish(continued, run)
        local.close()
        assert {row["key"]: (row["predicted"], row["reason"]) for row in rows(database)} == {
            **{f"bin-images/{number:05}.jpg": (number, None) for number in range(3)},
            "bad/cut.jpg": (None, "truncated"),
            "bad/empty.jpg": (None, "empty"),
            "bad/not.png": (None, "not_an_image"),
            "bad/avif.jpg": (None, "unsupported_format"),
            "odd key.jpg": (6, None),
        }
        assert len(rows(database)) == 8
        assert len(driver.jobs) == 1
        assert remaining_keys(bucket, settings) == []
        last = continued.runs.latest()
        assert last.sagemaker_model not in models_of(continued)
        assert (last.number, last.cleaned, last.ended is not None) == (1, True, True)
        database.dispose()
        if not killed:
            break
    assert steps > 15


def run_until_killed(settings: Settings, database: Database, operations: int) -> bool:
    local = LocalCounter(settings)
    nightly = Nightly(settings, Objects(settings), database, local)
    kill_after(nightly, operations)
    try:
        finish(nightly, nightly.start())
    except Killed:
        return True
    finally:
        local.close()
    return False


def test_concurrent_starts_give_one_run(
    nightly: Nightly, settings: Settings, s3: S3, driver: TransformDriver, sqlite_records: Database, local: LocalCounter
) -> None:
    put_photos(s3, 3)
    other = Nightly(settings, Objects(settings), sqlite_records, local)
    claim, other_runs = nightly.runs.claim, []

    def claim_too_late(run: NightlyRun) -> bool:
        other_runs.append(other.start())
        return claim(run)

    nightly.runs.claim = claim_too_late  # type: ignore[method-assign]
    run = nightly.start()
    assert run == other_runs[0]
    assert {key.split("/")[2] for key in remaining_keys(s3, settings)} == {run.token}
    nightly.advance(run)
    other.advance(run)
    finish(nightly, run)
    assert len(driver.jobs) == 1
    assert other.advance(run).ended is not None  # photos whose files the first process removed are not counted again
    assert local.keys == []
    assert len(rows(sqlite_records)) == 7


def test_run_ended_by_other_process_keeps_outcome(nightly: Nightly, s3: S3, driver: TransformDriver) -> None:
    put_photos(s3, 3)
    run = nightly.start()
    ended = finish(nightly, run)
    assert nightly._end(run, []) == ended
    assert nightly.runs.latest() == ended
    assert ended.outcome.recorded == 7


def test_poll_ends_in_time_and_next_poll_continues(
    nightly: Nightly, s3: S3, driver: TransformDriver, sqlite_records: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.sagemaker.nightly.ingest._CHUNK_PHOTOS", 2)
    put_photos(s3, 4)
    run = nightly.start()
    nightly.advance(run)
    while nightly.running_jobs(run):
        time.sleep(0.02)  # polling interval
    for recorded in (2, 4, 6):
        assert nightly.advance(run, within_s=0).ended is None
        assert len(rows(sqlite_records)) == recorded
    assert nightly.advance(run).ended is not None
    assert len(rows(sqlite_records)) == 8


def test_manually_deleted_files(nightly: Nightly, s3: S3, driver: TransformDriver) -> None:
    put_photos(s3, 1)
    run = nightly.start()
    for key in remaining_keys(s3, nightly._settings):
        s3.client.delete_object(Bucket=s3.bucket, Key=key)
    with pytest.raises(
        BinwatchError, match=r"run 1: .*plan-0001 does not exist.* delete s3://\S+/nightly/runs/00000001,"
    ):
        finish(nightly, run)
