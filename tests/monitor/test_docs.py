"""docs/metrics.md and a live scrape list the same metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from binwatch.errors import MetadataReason, Reason
from tests.monitor.conftest import Recorder, Running

DOC = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
_MONITORS = DOC.split("## Workers")[0]
_ROW = re.compile(r"^\| `(binwatch_\w+)` \| (\w+) \| *([^|]*?) *\| *([^|]*?) *\| [^|]+ \|$", re.MULTILINE)


@pytest.fixture(autouse=True)
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slice photos by their first folder."""
    monkeypatch.setenv("BINWATCH_SLICE_DEPTH", "1")


class _Metric(NamedTuple):
    type: str
    labels: frozenset[str]


def _documented() -> dict[str, _Metric]:
    return {
        name: _Metric(kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, _, labels in _ROW.findall(_MONITORS)
    }


def _scrape(monitor: Running) -> str:
    monitor.services.drift.update()
    monitor.services.flags.update()
    monitor.services.random_audits.update()
    return monitor.get("/metrics", Accept="application/openmetrics-text;version=1.0.0").text


def _scraped(monitor: Running) -> dict[str, _Metric]:
    text = _scrape(monitor)
    return {
        sample.name: _Metric(family.type, frozenset(sample.labels))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_documented_and_exposed_metrics_are_the_same(drifting: Running, known_records: Recorder) -> None:
    assert _documented() == _scraped(drifting)


def test_documented_units_match_the_scrape(drifting: Running, known_records: Recorder) -> None:
    text = _scrape(drifting)
    units = {family.name: family.unit for family in text_string_to_metric_families(text) if family.unit}
    documented = {name.removesuffix("_total"): unit for name, _, unit, _ in _ROW.findall(_MONITORS)}
    assert units == {name: documented[name] for name in units}
    assert len(units) == 4


def test_documented_queries_use_existing_metrics_and_labels() -> None:
    queries = "\n".join(re.findall(r"```promql\n(.*?)```", DOC, re.DOTALL))
    documented = _documented()
    assert set(re.findall(r"binwatch_\w+", queries)) == set(documented), "each metric has an example"
    for name, selector in re.findall(r"(binwatch_\w+)\{([^}]*)\}", queries):
        assert set(re.findall(r"(\w+)!?=", selector)) <= documented[name].labels
    every_label = frozenset().union(*(metric.labels for metric in documented.values()))
    assert set(re.findall(r"by \((\w+)\)", queries)) <= every_label


def test_every_reason_is_documented() -> None:
    rows = dict(re.findall(r"^\| (`reason` of [^|]+) \| ([^|]+) \|$", DOC, re.MULTILINE))
    listed = {subject: set(re.findall(r"`(\w+)`", values)) for subject, values in rows.items()}
    assert listed == {"`reason` of photos": set(Reason), "`reason` of expected quantities": set(MetadataReason)}
