"""Models in the records: time of first use, and the calibration for p-values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy import Connection, select, update

from binwatch.bundle import Calibration
from binwatch.conformal import PValueTable
from binwatch.records.tables import Model
from binwatch.records.upsert import insert_into

logger = logging.getLogger(__name__)


def note_model(connection: Connection, version: str, calibration: Calibration | None, now: datetime) -> None:
    """Record a model in use, and its calibration if it has one. Idempotent."""
    first = insert_into(connection, Model).values(model_version=version, first_at=now, calibrations=0)
    connection.execute(first.on_conflict_do_nothing())
    if calibration is None:
        return
    where = Model.model_version == version
    document = calibration.model_dump(mode="json")
    if connection.execute(select(Model.calibration).where(where).with_for_update()).scalar() != document:
        changed = {"calibration": document, "calibrated_at": now, "calibrations": Model.calibrations + 1}
        connection.execute(update(Model).where(where).values(changed))


class Calibrated(NamedTuple):
    """The p-values by a model's calibration, and the calibration's number, from 1 on."""

    number: int
    values: PValueTable


class Calibrations:
    """P-values by the calibrations in the records, so that all processes use the same ones."""

    def __init__(self) -> None:
        self._known: dict[str, Calibrated] = {}

    def of(self, connection: Connection, numbers: Mapping[str, int]) -> dict[str, Calibrated]:
        """Model → calibration, for models that have one. Reads only calibrations that have changed.

        `numbers`: model → number of its present calibration, 0 without one.
        """
        found = {}
        for version, number in numbers.items():
            if not number:
                continue
            known = self._known.get(version)
            values = known.values if known and known.number == number else _read(connection, version)
            if values is not None:
                found[version] = self._known[version] = Calibrated(number, values)
        return found


def _read(connection: Connection, version: str) -> PValueTable | None:
    document = connection.execute(select(Model.calibration).where(Model.model_version == version)).scalar()
    try:
        return PValueTable(Calibration.model_validate(document))
    except ValidationError as error:
        logger.warning("no p-values for model %s: its calibration in the records is damaged (%s)", version, error)
        return None
