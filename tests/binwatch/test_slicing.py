"""Slices: derivation from keys, maximum number, and records by slice."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, select

from binwatch.errors import SettingsError
from binwatch.records.slices import Slices
from binwatch.records.store import Store
from binwatch.records.tables import Count, CurrentComparison, Slice, SliceConfusionTotal, SlicePhotoTotal
from binwatch.settings import load_settings
from binwatch.slicing import MAX_SLICE_CHARS, MAX_SLICES, OTHER_SLICE, Slicing
from tests.binwatch.test_current import count, expect

FOLDER = Slicing(re.compile("^([^/]+)/"))


@pytest.mark.parametrize(
    ("name", "value", "slices"),
    [
        ("DEPTH", "1", {"a/b/c.jpg": "a", "a/c.jpg": "a", "c.jpg": OTHER_SLICE, "/c.jpg": OTHER_SLICE}),
        ("DEPTH", "2", {"a/b/c.jpg": "a/b", "a/b/x/c.jpg": "a/b", "a/c.jpg": "a", "c.jpg": OTHER_SLICE}),
        ("PATTERN", r"cam-(\d+)?", {"x/cam-12/c.jpg": "12", "x/cam-/c.jpg": OTHER_SLICE, "c.jpg": OTHER_SLICE}),
        ("PATTERN", "(.+)", {"x" * MAX_SLICE_CHARS: "x" * MAX_SLICE_CHARS, "x" * (MAX_SLICE_CHARS + 1): OTHER_SLICE}),
    ],
)
def test_slice_of_a_key(monkeypatch: pytest.MonkeyPatch, name: str, value: str, slices: dict[str, str]) -> None:
    monkeypatch.setenv(f"BINWATCH_SLICE_{name}", value)
    slicing = load_settings().slicing
    assert slicing is not None
    assert {key: slicing(key) for key in slices} == slices


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"PATTERN": "cam-["}, r"BINWATCH_SLICE_PATTERN: is not a regular expression \(unterminated"),
        ({"PATTERN": "cam"}, "BINWATCH_SLICE_PATTERN: has 0 groups instead of one, which is the slice"),
        ({"PATTERN": "(a)(b)"}, "BINWATCH_SLICE_PATTERN: has 2 groups instead of one, which is the slice"),
        ({"DEPTH": "0"}, "BINWATCH_SLICE_DEPTH: Input should be greater than or equal to 1"),
        ({"PATTERN": "(a)", "DEPTH": "1"}, "BINWATCH_SLICE_PATTERN is '\\(a\\)' and BINWATCH_SLICE_DEPTH is 1"),
    ],
)
def test_an_invalid_rule_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], words: str
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"BINWATCH_SLICE_{name}", value)
    with pytest.raises(SettingsError, match=words):
        load_settings()


def _names(engine: Engine, slicing: Slicing = FOLDER) -> dict[str, int]:
    of_rule = select(Slice.name, Slice.id).where(Slice.rule == slicing.rule)
    with engine.connect() as connection:
        return {row.name: row.id for row in connection.execute(of_rule)}


def test_all_processes_agree_on_the_first_slices(records_engine: Engine) -> None:
    """Eight processes add 40 new names each at the same time."""
    keys = [[f"{process}-{number}/a.jpg" for number in range(40)] for process in range(8)]
    processes = [Slices(Store(records_engine)._engine, FOLDER) for _ in keys]
    with ThreadPoolExecutor(len(keys)) as pool:
        ids_by_process = list(pool.map(lambda process, keys_: process.ids(keys_), processes, keys))
    names = _names(records_engine)
    assert len(names) == MAX_SLICES + 1
    all_ids = {key: id for ids in ids_by_process for key, id in ids.items()}
    assert all_ids == {key: names.get(key.partition("/")[0], names[OTHER_SLICE]) for keys_ in keys for key in keys_}
    restarted = Slices(Store(records_engine)._engine, FOLDER)
    assert restarted.ids(all_ids) == all_ids
    assert restarted.ids(["new/a.jpg"]) == {"new/a.jpg": names[OTHER_SLICE]}


def test_photos_comparisons_and_bins_are_recorded_by_slice(records_engine: Engine) -> None:
    store = Store(records_engine, slicing=FOLDER)
    photos = [count("a", 2, key="x/a.jpg"), count("b", None, key="y/b.jpg")]
    assert store.add_counts(photos) == 2
    assert store.add_counts(photos) == 0, "delivered twice"
    Store(records_engine).add_expectations([expect("a", 5)])  # recorded by a process without the setting
    names = _names(records_engine)
    with records_engine.connect() as connection:
        totals = select(SlicePhotoTotal.slice_id, SlicePhotoTotal.reason, SlicePhotoTotal.photos)
        assert {tuple(row) for row in connection.execute(totals)} == {(names["x"], "", 1), (names["y"], "corrupt", 1)}
        table = SliceConfusionTotal
        compared = select(table.slice_id, table.true_class, table.predicted_class, table.comparisons)
        assert [tuple(row) for row in connection.execute(compared)] == [(names["x"], 5, 2, 1)]
        assert connection.execute(select(CurrentComparison.slice_id)).scalar_one() == names["x"]


def test_another_rule_has_its_own_slices_and_keeps_recorded_ones(records_engine: Engine) -> None:
    Store(records_engine, slicing=FOLDER).add_counts([count("a", 2)])
    name = Slicing(re.compile("([^/]+)$"))
    Store(records_engine, slicing=name).add_counts([count("b", 2)])
    Store(records_engine).add_counts([count("c", 2)])
    assert {*_names(records_engine)} == {OTHER_SLICE, "bin-images"}
    assert {*_names(records_engine, name)} == {OTHER_SLICE, "b.jpg"}
    with records_engine.connect() as connection:
        result = {row.bin_id: row.slice_id for row in connection.execute(select(Count.bin_id, Count.slice_id))}
    assert result == {
        "a": _names(records_engine)["bin-images"], "b": _names(records_engine, name)["b.jpg"], "c": None
    }  # fmt: skip
