"""Ids of slices. The records keep them, so that all processes agree on which names of a rule came first."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, insert, select

from binwatch.records.tables import Slice
from binwatch.records.upsert import insert_into
from binwatch.slicing import MAX_SLICES, OTHER_SLICE, Slicing


class Slices:
    """Maps keys to ids in `slices`. Only a name that is new to this process needs a transaction."""

    def __init__(self, engine: Engine, slicing: Slicing) -> None:
        """`engine` must be able to write."""
        self._engine, self._slicing = engine, slicing
        self._id_by_name: dict[str, int] = {}

    def ids(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the id of each key's slice. New names beyond MAX_SLICES get the id of OTHER_SLICE."""
        names = {key: self._slicing(key) for key in keys}
        new = dict.fromkeys(name for name in names.values() if name not in self._id_by_name)
        if new and len(self._id_by_name) <= MAX_SLICES:
            with self._engine.begin() as connection:
                self._id_by_name = _add_slices(connection, self._slicing.rule, new)
        return {key: self._id_by_name.get(name, self._id_by_name[OTHER_SLICE]) for key, name in names.items()}


def _add_slices(connection: Connection, rule: str, names: Iterable[str]) -> dict[str, int]:
    """Add slices to a rule, up to MAX_SLICES; return the ids of all slices of the rule by name."""
    now = datetime.now(UTC)
    other = {"rule": rule, "name": OTHER_SLICE, "first_at": now}
    connection.execute(insert_into(connection, Slice).on_conflict_do_nothing(), other)
    # The lock makes concurrent processes agree on the last name within the limit.
    of_rule = select(Slice.name, Slice.id).where(Slice.rule == rule)
    connection.execute(of_rule.where(Slice.name == OTHER_SLICE).with_for_update()).close()
    recorded = {row[0] for row in connection.execute(of_rule)}
    new = [name for name in names if name not in recorded][: MAX_SLICES + 1 - len(recorded)]
    if new:
        connection.execute(insert(Slice), [other | {"name": name} for name in new])
    return {row.name: row.id for row in connection.execute(of_rule)}
