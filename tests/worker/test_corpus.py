"""Files of every kind are counted or fail with the right reason, without affecting others of their group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import select

from binwatch.errors import Reason
from binwatch.events import ObjectCreated
from binwatch.records.tables import Count, PhotoTotal
from binwatch.settings import Settings
from testing.brightness import brightness_of, jpeg
from testing.photos import MAX_BYTES, MAX_PIXELS, Case, corpus
from testing.services.s3 import S3
from tests.worker.test_count_command import count  # noqa: F401 (a fixture)
from worker.counting import Counting

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # raised by Pillow; not an error outside of tests

GROUP = 16


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Return the corpus with a valid photo between every two files."""
    result = corpus()
    assert len({case.name for case in result}) == len(result) >= 40
    good = [Case(f"neighbour-{n}.jpg", jpeg(brightness_of(n % 7)), n % 7) for n in range(len(result))]
    return [case for pair in zip(result, good, strict=True) for case in pair]


def expected(cases: list[Case]) -> dict[str, int | str]:
    return {case.name: case.outcome for case in cases}


def test_through_a_worker(cases: list[Case], settings: Settings, s3: S3, sqlite_records: Database) -> None:
    """Objects in the bucket → records."""
    limits = {"max_photo_bytes": MAX_BYTES, "max_photo_pixels": MAX_PIXELS, "batch_size": 4}
    counting = Counting(settings.model_copy(update=limits))
    for case in cases:
        s3.put(case.name, case.data)
    photos = [ObjectCreated(s3.bucket, case.name) for case in cases]
    for start in range(0, len(photos), GROUP):
        assert counting.count(photos[start : start + GROUP]) == []
    counting.close()
    with sqlite_records.connect() as connection:
        rows = connection.execute(select(Count.key, Count.reason, Count.predicted, Count.detail)).all()
        totals = dict(connection.execute(select(PhotoTotal.reason, PhotoTotal.photos)).all())
    assert {row.key: row.predicted if row.reason is None else row.reason for row in rows} == expected(cases)
    assert all((row.reason is None) == (row.predicted is not None) == (row.detail is None) for row in rows)
    reasons = [case.outcome if isinstance(case.outcome, Reason) else "" for case in cases]
    assert totals == {reason: reasons.count(reason) for reason in reasons}


def test_by_hand(cases: list[Case], tmp_path: Path, count: Any) -> None:  # noqa: F811
    """`python -m worker count FOLDER` gives the same results."""
    for case in cases:
        (tmp_path / case.name).write_bytes(case.data)
    limits = {"BINWATCH_MAX_PHOTO_BYTES": str(MAX_BYTES), "BINWATCH_MAX_PHOTO_PIXELS": str(MAX_PIXELS)}
    result = count(tmp_path, "--json", **limits)
    assert result.returncode == 0
    lines = json.loads(result.stdout)
    results = {Path(line["photo"]).name: line["reason"] or _class(line["count"]) for line in lines}
    assert results == expected(cases)
    assert all(bool(line["detail"]) == bool(line["reason"]) for line in lines)
    failed = sum(isinstance(case.outcome, Reason) for case in cases)
    assert result.stderr.decode().splitlines()[-1] == f"{len(cases) - failed} counted, {failed} failed"


def _class(name: str) -> int:
    return 6 if name == "more than 5" else int(name)
