"""Number of SQL statements per write, on both databases. Each is a round trip while locks are held."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, event

from binwatch.records.audits import add_audit
from binwatch.records.store import Store
from tests.binwatch.test_current import CALIBRATION, count, expect

GROUP = [f"{number:02}" for number in range(16)]
"""Bin ids of a batch."""
Cost = Callable[[Callable[[], object]], int]


@pytest.fixture
def cost(records_engine: Engine) -> Cost:
    """Return a function that counts a write's statements, including BEGIN. An executemany counts as one."""

    def counted(write: Callable[[], object]) -> int:
        statements: list[str] = []

        def note(_: Any, __: Any, statement: str, *___: Any) -> None:
            statements.append(statement)

        event.listen(records_engine, "before_cursor_execute", note)
        try:
            write()
        finally:
            event.remove(records_engine, "before_cursor_execute", note)
        print(f"{len(statements)} statements:", *statements, sep="\n\n")
        return len(statements)

    return counted


@pytest.fixture
def store(records_engine: Engine) -> Store:
    """Return a store that has read the model's calibration."""
    store = Store(records_engine)
    store.use_model("v1", CALIBRATION)
    store.add_counts([count("another bin", 2)])
    store.add_expectations([expect("another bin", 2)])
    return store


def test_number_of_statements_per_write(records_engine: Engine, store: Store, cost: Cost) -> None:
    photos, quantities = store.add_counts, store.add_expectations
    writes: list[tuple[str, Callable[[], object], int]] = [
        ("first photos of 16 bins", partial(photos, [count(name, 2) for name in GROUP]), 8),
        ("first quantity of a bin with a photo", partial(quantities, [expect("00", 3)]), 12),
        ("first quantities of 15 bins", partial(quantities, [expect(name, 3) for name in GROUP[1:]]), 12),
        ("the same quantity, a night later", partial(quantities, [expect("00", 3, minutes=1)]), 6),
        ("another quantity", partial(quantities, [expect("00", 4, minutes=2)]), 9),
        ("next photos of 16 bins", partial(photos, [count(name, 2, minutes=5) for name in GROUP]), 10),
        ("next photo of one bin", partial(photos, [count("00", 2, minutes=6)]), 10),
        ("a photo that was counted already", partial(photos, [count("00", 2, minutes=6)]), 6),
        ("an audit that differs", partial(add_audit, records_engine, "bins", "00", 3), 14),
    ]
    assert {description: cost(write) for description, write, _ in writes} == {
        description: number for description, _, number in writes
    }
