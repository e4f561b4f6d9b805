"""The running totals as the records keep them. Reading them costs the same with a thousand records or ten million."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, RowMapping, select

from binwatch.counts import Outcome
from binwatch.records.audits import Subject
from binwatch.records.bins import PhotoState, QuantityState
from binwatch.records.tables import AuditTotal, BinTotal, ComparisonTotal, Count, ExpectationTotal, Model, PhotoTotal

COUNTED = ""
"""Where a total is by reason: those that went well."""


class RecordKind(StrEnum):
    """What is recorded."""

    PHOTO = "photo"
    EXPECTED_QUANTITY = "expected_quantity"
    COMPARISON = "comparison"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over comparisons, or over audits. Errors are in items, with "more than 5" taken as 6."""

    comparisons: int = 0
    within_one: int = 0
    absolute_error: int = 0
    squared_error: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.comparisons + other.comparisons,
            self.within_one + other.within_one,
            self.absolute_error + other.absolute_error,
            self.squared_error + other.squared_error,
        )


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """The model of the most recent record, and how it ran."""

    version: str
    precision: str
    provider: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything that has been recorded, summed.

    `photos` is by model and reason, `expectations` by reason, `comparisons` by model, expected class and outcome.
    """

    photos: dict[tuple[str, str], int]
    expectations: dict[str, int]
    comparisons: dict[tuple[str, int, Outcome], Tally]
    last: dict[RecordKind, datetime]
    """When the last of each kind was recorded; without those of which there is none."""
    in_use: ModelInUse | None
    audits: dict[tuple[Subject, str, int, Outcome], Tally] = field(default_factory=dict)
    """By what was judged, its model ('' for the inventory), audited class and outcome."""
    bins: dict[tuple[PhotoState, QuantityState], int] = field(default_factory=dict)
    noted: frozenset[str] = frozenset()
    """Versions that a worker counts with, or is about to."""

    @property
    def models(self) -> list[str]:
        """Versions of all models that ever counted, in the order of their names."""
        return sorted({model for model, _ in self.photos} | {model for model, _, _ in self.comparisons})

    def tally(self, model: str, expected_class: int, outcome: Outcome) -> Tally:
        """The sums of one cell; zeros if there was no such comparison."""
        return self.comparisons.get((model, expected_class, outcome), Tally())

    def audit(self, subject: Subject, model: str, audited_class: int, outcome: Outcome) -> Tally:
        """The sums of one cell; zeros if there was no such audit."""
        return self.audits.get((subject, model, audited_class, outcome), Tally())


def read_totals(connection: Connection) -> Totals:
    """Read the totals: six small tables, and one row of a ledger."""
    photos = connection.execute(select(PhotoTotal.__table__)).mappings().all()
    expectations = connection.execute(select(ExpectationTotal.__table__)).mappings().all()
    comparisons = connection.execute(select(ComparisonTotal.__table__)).mappings().all()
    audits = connection.execute(select(AuditTotal.__table__)).mappings().all()
    bins = connection.execute(select(BinTotal.__table__)).mappings().all()
    return Totals(
        photos={(row["model_version"], row["reason"]): row["photos"] for row in photos},
        expectations={row["reason"]: row["expectations"] for row in expectations},
        comparisons={
            (row["model_version"], row["expected_class"], Outcome(row["outcome"])): _tally(row, "comparisons")
            for row in comparisons
        },
        last=_last(
            {
                RecordKind.PHOTO: photos,
                RecordKind.EXPECTED_QUANTITY: expectations,
                RecordKind.COMPARISON: comparisons,
                RecordKind.AUDIT: audits,
            }
        ),
        in_use=read_model_in_use(connection),
        audits={
            (Subject(row["subject"]), row["model_version"], row["audited_class"], Outcome(row["outcome"])): _tally(
                row, "audits"
            )
            for row in audits
        },
        bins={(PhotoState(row["photo_state"]), QuantityState(row["quantity_state"])): row["bins"] for row in bins},
        noted=frozenset(connection.execute(select(Model.model_version)).scalars()),
    )


def read_model_in_use(connection: Connection) -> ModelInUse | None:
    """Model of the most recent record, counted or failed (a search for one that was counted could run far back)."""
    newest = select(Count.model_version, Count.precision, Count.provider).order_by(Count.id.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    return ModelInUse(*row) if row else None


def _tally(row: RowMapping, number: str) -> Tally:
    return Tally(row[number], row["within_one"], row["absolute_error"], row["squared_error"])


def _last(tables: dict[RecordKind, Iterable[RowMapping]]) -> dict[RecordKind, datetime]:
    newest = {kind: max((row["last_at"] for row in rows), default=None) for kind, rows in tables.items()}
    return {kind: at for kind, at in newest.items() if at is not None}
