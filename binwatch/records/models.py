"""Models in the records: when each was first used, and its calibration for p-values."""

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


def record_model(connection: Connection, version: str, calibration: Calibration | None, now: datetime) -> None:
    """Record a model in use, and its calibration if it has one. Idempotent."""
    insert = insert_into(connection, Model).values(model_version=version, first_at=now, calibrations=0)
    connection.execute(insert.on_conflict_do_nothing())
    if calibration is None:
        return
    is_model = Model.model_version == version
    document = calibration.model_dump(mode="json")
    if connection.execute(select(Model.calibration).where(is_model).with_for_update()).scalar() != document:
        changes = {"calibration": document, "calibrated_at": now, "calibrations": Model.calibrations + 1}
        connection.execute(update(Model).where(is_model).values(changes))


class CurrentCalibration(NamedTuple):
    """A model's current calibration."""

    number: int
    """1, 2, … for each model."""
    p_values: PValueTable


class Calibrations:
    """Cache of the calibrations in the records, from which all processes read them, so that all use the same ones."""

    def __init__(self) -> None:
        self._cache: dict[str, CurrentCalibration] = {}

    def current(self, connection: Connection, numbers: Mapping[str, int]) -> dict[str, CurrentCalibration]:
        """Return the calibration of each model that has one. Reads only calibrations that have changed.

        `numbers` maps each model to the number of its current calibration, 0 if it has none.
        """
        calibrations = {}
        for version, number in numbers.items():
            if not number:
                continue
            cached = self._cache.get(version)
            p_values = cached.p_values if cached and cached.number == number else _read(connection, version)
            if p_values is not None:
                calibrations[version] = self._cache[version] = CurrentCalibration(number, p_values)
        return calibrations


def _read(connection: Connection, version: str) -> PValueTable | None:
    document = connection.execute(select(Model.calibration).where(Model.model_version == version)).scalar()
    try:
        return PValueTable(Calibration.model_validate(document))
    except ValidationError as error:
        logger.warning("no p-values for model %s: its calibration in the records is damaged (%s)", version, error)
        return None
