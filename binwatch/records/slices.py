"""Slices in the records, so that all processes agree on which values of a rule came first."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, insert, select

from binwatch.records.tables import Slice
from binwatch.records.upsert import insert_into
from binwatch.slicing import MAX_SLICES, OTHER_SLICE, Slicing


class Slices:
    """Key → id in `slices`. Only names that are new to this process need a transaction."""

    def __init__(self, engine: Engine, slicing: Slicing) -> None:
        """`engine` must be able to write."""
        self._engine, self._slicing = engine, slicing
        self._known: dict[str, int] = {}

    def ids(self, keys: Iterable[str]) -> dict[str, int]:
        """Key → id of its slice; for new names beyond MOST, the id of OTHER."""
        names = {key: self._slicing(key) for key in keys}
        new = dict.fromkeys(name for name in names.values() if name not in self._known)
        if new and len(self._known) <= MAX_SLICES:
            with self._engine.begin() as connection:
                self._known = _noted(connection, self._slicing.rule, new)
        return {key: self._known.get(name, self._known[OTHER_SLICE]) for key, name in names.items()}


def _noted(connection: Connection, rule: str, names: Iterable[str]) -> dict[str, int]:
    """All slices of the rule, after adding `names` up to the limit MOST."""
    now = datetime.now(UTC)
    other = {"rule": rule, "name": OTHER_SLICE, "first_at": now}
    connection.execute(insert_into(connection, Slice).on_conflict_do_nothing(), other)
    # The lock makes concurrent processes agree on the last name within the limit.
    of_rule = select(Slice.name, Slice.id).where(Slice.rule == rule)
    connection.execute(of_rule.where(Slice.name == OTHER_SLICE).with_for_update()).close()
    known = {row[0] for row in connection.execute(of_rule)}
    new = [name for name in names if name not in known][: MAX_SLICES + 1 - len(known)]
    if new:
        connection.execute(insert(Slice), [other | {"name": name} for name in new])
    return {row.name: row.id for row in connection.execute(of_rule)}
