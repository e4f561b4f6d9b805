"""The running totals in the records. The cost of reading them does not depend on the number of records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, RowMapping, select

from binwatch.confusion import ConfusionMatrix, TruthSource
from binwatch.records.audits import AuditAnswer
from binwatch.records.settlement import PhotoState, QuantityState
from binwatch.records.tables import (
    AuditTotal,
    BinTotal,
    ConfusionTotal,
    Count,
    ExpectationTotal,
    Model,
    PhotoTotal,
    Slice,
    VarianceTotal,
)
from binwatch.records.variances import VarianceState
from binwatch.slicing import Slicing

NO_REASON = ""
"""Value of the column `reason` in totals of photos that were counted, and of quantities that were read."""


class RecordKind(StrEnum):
    """Kinds of records."""

    PHOTO = "photo"
    EXPECTED_QUANTITY = "expected_quantity"
    COMPARISON = "comparison"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """The model of the most recent record, and how it ran."""

    version: str
    precision: str
    provider: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of all records."""

    photos: dict[tuple[str, str], int]
    """By model and reason; NO_REASON for counted photos."""
    expectations: dict[str, int]
    """By reason; NO_REASON for quantities that were read."""
    confusions: dict[tuple[TruthSource, str], ConfusionMatrix]
    """By the source of the true class and the model; '' for the inventory, which audits judge as well."""
    last: dict[RecordKind, datetime]
    """When the last record of each kind was written. Kinds without a record are absent."""
    in_use: ModelInUse | None
    bins: dict[tuple[PhotoState, QuantityState], int] = field(default_factory=dict)
    noted: frozenset[str] = frozenset()
    """Versions that workers have announced, possibly before their first record."""
    audits: dict[tuple[AuditAnswer, bool], int] = field(default_factory=dict)
    """By answer, and whether the audit was blind."""
    variances: dict[VarianceState, int] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """Sorted versions of all models with records."""
        compared_models = {model for source, model in self.confusions if source is TruthSource.INVENTORY}
        return sorted({model for model, _ in self.photos} | compared_models)

    def confusion(self, source: TruthSource, model: str) -> ConfusionMatrix:
        """Return the confusion matrix of a model or the inventory; empty if there was no such comparison."""
        return self.confusions.get((source, model), ConfusionMatrix())


def read_totals(connection: Connection) -> Totals:
    """Read the totals: seven small tables and one row of a ledger."""
    photos = connection.execute(select(PhotoTotal.__table__)).mappings().all()
    expectations = connection.execute(select(ExpectationTotal.__table__)).mappings().all()
    confusions = connection.execute(select(ConfusionTotal.__table__)).mappings().all()
    bins = connection.execute(select(BinTotal.__table__)).mappings().all()
    audits = connection.execute(select(AuditTotal.__table__)).mappings().all()
    variances = connection.execute(select(VarianceTotal.__table__)).mappings().all()
    tables = {
        RecordKind.PHOTO: photos,
        RecordKind.EXPECTED_QUANTITY: expectations,
        RecordKind.COMPARISON: [row for row in confusions if row["reference"] == TruthSource.INVENTORY],
        RecordKind.AUDIT: audits,
    }
    times = {kind: [row["last_at"] for row in rows if row["last_at"] is not None] for kind, rows in tables.items()}
    return Totals(
        photos={(row["model_version"], row["reason"]): row["photos"] for row in photos},
        expectations={row["reason"]: row["expectations"] for row in expectations},
        confusions=_confusion_matrices(confusions),
        last={kind: max(kind_times) for kind, kind_times in times.items() if kind_times},
        in_use=read_model_in_use(connection),
        bins={(PhotoState(row["photo_state"]), QuantityState(row["quantity_state"])): row["bins"] for row in bins},
        noted=frozenset(connection.execute(select(Model.model_version)).scalars()),
        audits={(AuditAnswer(row["answer"]), row["blind"]): row["audits"] for row in audits},
        variances={VarianceState(row["state"]): row["variances"] for row in variances},
    )


def read_model_in_use(connection: Connection) -> ModelInUse | None:
    """Read the model of the latest record, counted or failed: a search for a counted one could scan many rows."""
    latest = select(Count.model_version, Count.precision, Count.provider).order_by(Count.id.desc()).limit(1)
    row = connection.execute(latest).one_or_none()
    return ModelInUse(*row) if row else None


def slice_names(connection: Connection, slicing: Slicing | None) -> dict[int, str]:
    """Map the ids of all slices of the rule to their names, in the order of the names; empty without a rule."""
    if slicing is None:
        return {}
    slices = select(Slice.id, Slice.name).where(Slice.rule == slicing.rule).order_by(Slice.name)
    return {row.id: row.name for row in connection.execute(slices)}


def _confusion_matrices(rows: Iterable[RowMapping]) -> dict[tuple[TruthSource, str], ConfusionMatrix]:
    cells: dict[tuple[TruthSource, str], dict[tuple[int, int], int]] = {}
    for row in rows:
        matrix = cells.setdefault((TruthSource(row["reference"]), row["model_version"]), {})
        matrix[row["true_class"], row["predicted_class"]] = row["comparisons"]
    return {key: ConfusionMatrix(matrix) for key, matrix in cells.items()}
