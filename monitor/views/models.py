"""The models that have counted photos: facts of their cards, figures of the records, and when each was used."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import AwareDatetime, BaseModel
from sqlalchemy import Connection, select

from binwatch.bundle import Card, Metrics, Precision
from binwatch.confusion import ConfusionMatrix, TruthSource
from binwatch.counts import CLASSES
from binwatch.records.tables import Model, PhotoTotal
from binwatch.registry import CurrentModel
from monitor.summary import Agreement, Audits, Done, summarise
from monitor.totals import read_totals

FindCard = Callable[[str], Card | None]
"""Function that returns the card of a model's version, or None if it is not loaded."""


class VariantFacts(BaseModel):
    """One ONNX file of a bundle."""

    precision: str
    file: str
    bytes: int
    sha256: str


class CardFacts(BaseModel):
    """Facts of a model's card."""

    architecture: str
    created: AwareDatetime
    never: list[str]
    """Classes that the model cannot predict, since no training photo showed them."""
    temperature: float
    variants: list[VariantFacts]
    measured: str
    """Variant that `metrics` belongs to: the one in use if it was measured, otherwise fp32."""
    metrics: dict[str, Metrics]
    """Name of the photo set → metrics on labelled photos."""
    calibrated: int
    """Number of calibration photos for p-values; 0 if bins are ranked without p-values."""
    reference: int
    """Number of reference photos for drift; 0 if drift cannot be measured."""
    notes: list[str]


class Confusion(BaseModel):
    """Confusion matrix."""

    labels: list[str]
    rows: list[list[int]]
    """Shape (classes, classes): true class (row) × predicted class (column)."""
    total: int


class ModelView(BaseModel):
    """One model."""

    version: str
    in_use: bool
    """Whether the most recent record is of this model."""
    promoted_at: AwareDatetime | None
    """When the model was promoted; None unless it is the promoted one."""
    first_at: datetime | None
    """When a worker first used the model."""
    last_at: datetime | None
    """When a worker last recorded a photo with the model."""
    photos: Done
    agreement: Agreement
    """Agreement of counts with expected quantities."""
    audits: Audits
    """Agreement with blind audits."""
    sighted_audits: Audits
    """Agreement with audits by people who had seen the numbers."""
    against_inventory: Confusion
    against_audits: Confusion
    against_sighted_audits: Confusion
    card: CardFacts | None
    """None if the card is still being fetched in the background, or is missing."""


class ModelsView(BaseModel):
    """All models that have counted a photo, the one in use first, then the most recently used."""

    models: list[ModelView]


def read_models(connection: Connection, find_card: FindCard, current: CurrentModel | None) -> ModelsView:
    """Return all models. The cost does not depend on the number of photos."""
    totals = read_totals(connection)
    first_used = {row.model_version: row.first_at for row in connection.execute(select(Model.__table__))}
    last_used: dict[str, datetime] = {}
    for version, last_at in connection.execute(select(PhotoTotal.model_version, PhotoTotal.last_at)):
        last_used[version] = max(last_at, last_used.get(version, last_at))
    views = []
    for version in totals.models:
        summary = summarise(totals, version)
        in_use = totals.in_use if totals.in_use and totals.in_use.version == version else None
        views.append(
            ModelView(
                version=version,
                in_use=in_use is not None,
                promoted_at=current.promoted if current and current.version == version else None,
                first_at=first_used.get(version),
                last_at=last_used.get(version),
                photos=summary.photos,
                agreement=summary.agreement,
                audits=summary.audits,
                sighted_audits=summary.sighted_audits,
                against_inventory=_confusion(totals.confusion(TruthSource.INVENTORY, version)),
                against_audits=_confusion(totals.confusion(TruthSource.AUDIT, version)),
                against_sighted_audits=_confusion(totals.confusion(TruthSource.SIGHTED, version)),
                card=_card_facts(find_card(version), in_use.precision if in_use else None),
            )
        )
    views.sort(key=lambda view: (view.in_use, view.last_at.timestamp() if view.last_at else 0.0), reverse=True)
    return ModelsView(models=views)


def _confusion(matrix: ConfusionMatrix) -> Confusion:
    return Confusion(labels=list(CLASSES), rows=matrix.rows, total=matrix.comparisons)


def _card_facts(card: Card | None, precision: str | None) -> CardFacts | None:
    if card is None:
        return None
    variant = precision or (next(iter(card.variants)) if len(card.variants) == 1 else Precision.FP32)
    is_measured = variant in card.variants and bool(card.variants[Precision(variant)].metrics)
    return CardFacts(
        architecture=card.architecture,
        created=card.created,
        never=[CLASSES[index] for index in card.unlearned_classes],
        temperature=card.temperature,
        variants=[
            VariantFacts(precision=name.value, file=entry.file, bytes=entry.bytes, sha256=entry.sha256)
            for name, entry in card.variants.items()
        ],
        measured=variant if is_measured else Precision.FP32,
        metrics=card.metrics_of(variant),
        calibrated=card.calibration.photos if card.calibration else 0,
        reference=card.reference.photos if card.reference else 0,
        notes=card.notes,
    )
