"""The models that counted: what their cards say, what the records say, and since when each is in use."""

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

CardOf = Callable[[str], Card | None]
"""A model's version → its card; None if that is not at hand (yet)."""


class VariantFacts(BaseModel):
    """One ONNX file of a bundle."""

    precision: str
    file: str
    bytes: int
    sha256: str


class CardFacts(BaseModel):
    """The facts of a model's card that people read."""

    architecture: str
    created: AwareDatetime
    never: list[str]
    """Classes that the model cannot predict, since no training photo showed them."""
    temperature: float
    variants: list[VariantFacts]
    measured: str
    """The variant that `metrics` are of: the one in use, where it was measured."""
    metrics: dict[str, Metrics]
    """Name of the photo set → figures on labelled photos."""
    calibrated: int
    """Photos that p-values are made with; 0: none, bins are ranked without."""
    reference: int
    """Photos that drift is measured against; 0: none."""
    notes: list[str]


class Confusion(BaseModel):
    """Counts by the class that they should be."""

    labels: list[str]
    rows: list[list[int]]
    """Row: the class that it should be; column: the class that the model said. Shape (classes, classes)."""
    total: int


class ModelView(BaseModel):
    """One model."""

    version: str
    in_use: bool
    """It counted the most recent photo."""
    promoted_at: AwareDatetime | None
    """When it was promoted, if it is the promoted one."""
    first_at: datetime | None
    """When a worker first used it."""
    last_at: datetime | None
    """When it last recorded a photo."""
    photos: Done
    agreement: Agreement
    """With expected quantities."""
    audits: Audits
    """With what people found who audited blind."""
    sighted_audits: Audits
    """With what people found who had the numbers in sight."""
    against_inventory: Confusion
    against_audits: Confusion
    against_sighted_audits: Confusion
    card: CardFacts | None
    """None if the card is not at hand: it is fetched in the background, or cannot be had."""


class ModelsView(BaseModel):
    """Every model that ever counted, the most recent first."""

    models: list[ModelView]


def read_models(connection: Connection, card_of: CardOf, current: CurrentModel | None) -> ModelsView:
    """All models. The cost does not depend on the number of photos."""
    totals = read_totals(connection)
    first = {row.model_version: row.first_at for row in connection.execute(select(Model.__table__))}
    last: dict[str, datetime] = {}
    for version, at in connection.execute(select(PhotoTotal.model_version, PhotoTotal.last_at)):
        last[version] = max(at, last.get(version, at))
    views = []
    for version in totals.models:
        summary = summarise(totals, version)
        in_use = totals.in_use if totals.in_use and totals.in_use.version == version else None
        views.append(
            ModelView(
                version=version,
                in_use=in_use is not None,
                promoted_at=current.promoted if current and current.version == version else None,
                first_at=first.get(version),
                last_at=last.get(version),
                photos=summary.photos,
                agreement=summary.agreement,
                audits=summary.audits,
                sighted_audits=summary.sighted_audits,
                against_inventory=_confusion(totals.confusion(TruthSource.INVENTORY, version)),
                against_audits=_confusion(totals.confusion(TruthSource.AUDIT, version)),
                against_sighted_audits=_confusion(totals.confusion(TruthSource.SIGHTED, version)),
                card=_facts(card_of(version), in_use.precision if in_use else None),
            )
        )
    views.sort(key=lambda view: (view.in_use, view.last_at.timestamp() if view.last_at else 0.0), reverse=True)
    return ModelsView(models=views)


def _confusion(matrix: ConfusionMatrix) -> Confusion:
    return Confusion(labels=list(CLASSES), rows=matrix.rows, total=matrix.comparisons)


def _facts(card: Card | None, in_use: str | None) -> CardFacts | None:
    if card is None:
        return None
    variant = in_use or (next(iter(card.variants)) if len(card.variants) == 1 else Precision.FP32)
    is_measured = variant in card.variants and bool(card.variants[Precision(variant)].metrics)
    return CardFacts(
        architecture=card.architecture,
        created=card.created,
        never=[CLASSES[index] for index in card.unlearned_classes],
        temperature=card.temperature,
        variants=[
            VariantFacts(precision=precision.value, file=variant.file, bytes=variant.bytes, sha256=variant.sha256)
            for precision, variant in card.variants.items()
        ],
        measured=variant if is_measured else Precision.FP32,
        metrics=card.metrics_of(variant),
        calibrated=card.calibration.photos if card.calibration else 0,
        reference=card.reference.photos if card.reference else 0,
        notes=card.notes,
    )
