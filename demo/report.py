"""Summarises the records of the uploaded photos and metadata files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from binwatch.confusion import ConfusionMatrix
from binwatch.counts import class_of, outcome_of
from binwatch.records.tables import Bin, Count, Expectation


@dataclass(frozen=True, slots=True)
class BinReport:
    """Result for one photo.

    `predicted` is the class, 0 to 6 for "more than 5"; `outcome` is exact, under, over, failed or "no expected
    quantity".
    """

    key: str
    predicted: int | None
    probabilities: list[float] | None
    expected: int | None
    outcome: str
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Result of a demo. Errors are in items, with "more than 5" taken as 6; shares are of the compared photos."""

    photos: int
    counted: int
    failed: dict[str, int]
    metadata: int
    metadata_failed: dict[str, int]
    compared: int
    agreement: float | None
    mae: float | None
    rmse: float | None
    within_one: float | None
    photos_per_second: float | None
    model: dict[str, str | None]
    bins: list[BinReport]
    unaccounted: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def find_unaccounted(engine: Engine, bucket: str, photos: Sequence[str], metadata: Sequence[str]) -> list[str]:
    """Return the keys that have no record yet, neither a result nor a reason."""
    with engine.connect() as connection:
        counted = set(connection.scalars(select(Count.key).where(Count.bucket == bucket)))
        read = set(connection.scalars(select(Expectation.source).where(Expectation.bucket == bucket)))
    return [key for key in photos if key not in counted] + [key for key in metadata if key not in read]


def make_report(
    engine: Engine, bucket: str, photos: Sequence[str], metadata: Sequence[str], seconds: float
) -> DemoReport:
    """Summarise the records; `seconds` is the time from the first upload to the last record."""
    with engine.connect() as connection:
        counts = connection.execute(select(Count.__table__).where(Count.bucket == bucket)).mappings().all()
        expected = dict(
            connection.execute(
                select(Bin.bin_id, Expectation.quantity)
                .join(Expectation, Expectation.id == Bin.expectation_id)
                .where(Bin.bucket == bucket, Expectation.reason.is_(None))
            )
            .tuples()
            .all()
        )
        refusals = connection.scalars(
            select(Expectation.reason).where(Expectation.bucket == bucket, Expectation.reason.is_not(None))
        ).all()
    bins = [_report_bin(dict(row), expected) for row in sorted(counts, key=lambda row: row["key"])]
    failed = Counter(row["reason"] for row in counts if row["reason"])
    counted = sum(row["reason"] is None for row in counts)
    last = max(counts, key=lambda row: row["id"], default=None)
    model = {"version": "model_version", "variant": "precision", "provider": "provider"}
    return DemoReport(
        photos=len(photos),
        counted=counted,
        failed=dict(failed),
        metadata=len(metadata),
        metadata_failed=dict(Counter(reason for reason in refusals if reason)),
        photos_per_second=round(counted / seconds, 1) if seconds > 0 else None,
        model={name: last[column] if last else None for name, column in model.items()},
        bins=bins,
        unaccounted=find_unaccounted(engine, bucket, photos, metadata),
        **_agreement_figures(bins),
    )


def _report_bin(row: dict[str, Any], expected: dict[str, int | None]) -> BinReport:
    quantity = expected.get(row["bin_id"])
    if row["reason"]:
        outcome = "failed"
    else:
        outcome = "no expected quantity" if quantity is None else outcome_of(row["predicted"], quantity)
    return BinReport(
        row["key"], row["predicted"], row["probabilities"], quantity, outcome, row["reason"], row["detail"]
    )


def _agreement_figures(bins: Sequence[BinReport]) -> dict[str, Any]:
    matrix = ConfusionMatrix.from_pairs(
        (class_of(photo.expected), photo.predicted)
        for photo in bins
        if photo.predicted is not None and photo.expected is not None
    )
    figures = {name: getattr(matrix, name) for name in ("agreement", "mae", "rmse", "within_one")}
    rounded = {name: None if value is None else round(value, 4) for name, value in figures.items()}
    return {"compared": matrix.comparisons} | rounded
