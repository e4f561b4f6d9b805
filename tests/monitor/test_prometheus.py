"""Rules and dashboards: promtool's unit tests, existing metrics and labels, and all queries in a real Prometheus."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, select

from benchmarks.alerts import write_config
from binwatch.errors import MetadataReason, Reason
from binwatch.records.store import Store
from binwatch.records.tables import AuditDraw, Bin
from monitor.estimates import MIN_AUDITS
from tests.monitor.conftest import Recorder, Running, record_known
from tests.monitor.drifting import DAY, MODEL, record_photos, simulated_photos
from tests.monitor.grafana import faults
from tests.monitor.prometheus import DEPLOY, ROOT, Prometheus, program, running_prometheus
from worker.engine import SelfCheckResult
from worker.inference_sessions import CPU_PROVIDER, CUDA
from worker.metrics import PeriodicStep, PhotoStage, WorkerMetrics
from worker.nightly.tasks import NIGHTLY
from worker.queue_depth import QueueRole
from worker.tasks import RECONCILE

DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
RULES = {name: (DEPLOY / name).read_text(encoding="utf-8") for name in ("recording.yml", "alerts.yml")}
DOC = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
OPERATIONS = ROOT / "docs" / "operations.md"
UNIT_TESTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(DEPLOY.glob("tests*.yml"))}
HISTOGRAM = ("_bucket", "_sum", "_count")
ALERTS = list(dict.fromkeys(re.findall(r"- alert: (\w+)", RULES["alerts.yml"])))
PROMQL = re.compile(r"```promql\n(.*?)```", re.DOTALL)
SELECTOR = re.compile(r'(?<![\w:"])((?:model:)?binwatch_[\w:]+|process_\w+|up(?=[{)\[ ]))(?:\{([^}]*)\})?')
MATCHER = re.compile(r'(\w+)\s*(!?[=~]+)\s*\\?"([^"\\]*)')
GROUPED = re.compile(r"\b(?:by|on|ignoring|group_left) ?\(([^)]*)\)")
LONG_RANGES = {"$__rate_interval", "1d", "7d"}
RECORDED = re.findall(r"- record: ([\w:]+)", RULES["recording.yml"])
DATA_TIMEOUT_S = 60
"""Two scrapes and an evaluation of the rules take three seconds; a busy machine may take its time."""


def _dashboard(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _targets(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("dashboard: panel: legend", target) of every query."""
    for panel in _dashboard(path)["panels"]:
        for target in panel.get("targets", []):
            yield f"{path.stem}: {panel['title']}: {target['legendFormat']}", target


EVERY_TARGET = dict(target for path in DASHBOARDS for target in _targets(path))
EVERY_QUERY = {
    name: target["expr"].replace("$__rate_interval", "1h").replace("$slice", ".*")
    for name, target in EVERY_TARGET.items()
}


@pytest.fixture(autouse=True)
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slice photos by their first folder."""
    monkeypatch.setenv("BINWATCH_SLICE_DEPTH", "1")


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    for arguments in (
        ["check", "config", "--lint=all", "--lint-fatal", "prometheus.yml"],
        ["test", "rules", *UNIT_TESTS],
    ):
        result = subprocess.run(
            [program("promtool"), *arguments], cwd=DEPLOY, capture_output=True, text=True, timeout=240
        )
        assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_accepts_the_accelerated_rules(tmp_path: Path) -> None:
    """In these rules an hour takes a minute (docs/operations.md)."""
    write_config(60, tmp_path / "faster")
    checked = subprocess.run(
        [program("promtool"), "check", "config", str(tmp_path / "faster/prometheus.yml")],
        capture_output=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    rules = (tmp_path / "faster/alerts.yml").read_text(encoding="utf-8")
    assert "quantile_over_time(0.05, binwatch_workers:count[1440000ms])" in rules
    assert 'deadline_timestamp_seconds{task="binwatch.nightly", step="success"} > -42480' in rules
    assert '{kind="photo"}) > 10080)' in rules
    assert "binwatch_drift_update_timestamp_seconds > 600" in rules  # unchanged
    assert re.findall(r"(?:for: |\[|offset )\d+[smhdw]\b", rules) == []


def test_every_alert_has_a_unit_test_and_a_runbook() -> None:
    tests = "".join(UNIT_TESTS.values())
    sections = re.findall(r"^### (\w+)$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in sections if name.startswith("Binwatch")] == ALERTS
    for alert in ALERTS:
        assert tests.count(f"alertname: {alert}") >= 2, f"{alert}: once where it fires, once where it must not"
        assert f"docs/operations.md#{alert.lower()}" in RULES["alerts.yml"]


def test_every_alert_has_a_severity_and_a_remedy() -> None:
    anchors = re.findall(r"^#+ (\w+)$", OPERATIONS.read_text(encoding="utf-8").lower(), re.MULTILINE)
    for rule in _rules("alerts.yml"):
        annotations = rule["annotations"]
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert set(annotations) == {"summary", "description", "runbook_url"}, rule["alert"]
        base, _, anchor = annotations["runbook_url"].partition("docs/operations.md#")
        assert (base, anchor) == ("{{ $externalLabels.source }}", rule["alert"].lower())
        assert rule["alert"].lower() in anchors


OPEN_LABELS = {"model", "version", "precision", "instance"}
"""Labels whose values are known only in a running system."""
MORE_VALUES = {
    "job": {job["job_name"] for job in yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]},
    "provider": {CPU_PROVIDER, CUDA},
    "self_check": set(SelfCheckResult),
}
"""Valid label values that do not occur in the scrapes of the tests."""
NON_METRIC_NAMES = {"binwatch_default", "binwatch_monitor", "binwatch_worker"}
"""Names in the docs that look like metrics: a network and database roles."""


def test_metrics_and_labels_in_rules_dashboards_and_docs_exist(
    drifting: Running, known_records: Recorder, worker: str
) -> None:
    """Check metrics, recording rules, labels, and the values that labels are compared with."""
    drifting.services.drift.update()
    drifting.services.flags.update()
    drifting.services.random_audits.update()
    series = _series(drifting.get("/metrics").text, httpx.get(f"http://{worker}/metrics").text)
    recorded = {label: set().union(*(labels.get(label, ()) for labels in series.values())) for label in _labels(series)}
    series |= dict.fromkeys(RECORDED, recorded) | {"up": {}}
    docs = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
    in_docs = {f"{name} {n}": query for name, text in docs.items() for n, query in enumerate(PROMQL.findall(text))}
    rules = {f"{name} {n}": rule["expr"] for name in RULES for n, rule in enumerate(_rules(name))}
    annotations = {path.stem: json.dumps(_dashboard(path)["annotations"]) for path in DASHBOARDS}
    wrong = {
        where: unknown
        for where, query in (rules | EVERY_QUERY | annotations | in_docs).items()
        if (unknown := list(_unknown(query, series)))
    }
    assert wrong == {}
    named = {name for text in docs.values() for name in re.findall(r"`((?:\w+:)?binwatch_[\w:]+)", text)}
    assert {name for name in named if name not in series and f"{name}_bucket" not in series} <= NON_METRIC_NAMES


def _rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES[name])["groups"] for rule in group["rules"]]


def _series(*scrapes: str) -> dict[str, dict[str, set[str]]]:
    """Return metric → label → values from scrapes."""
    values: dict[str, dict[str, set[str]]] = {}
    for family in itertools.chain(*map(text_string_to_metric_families, scrapes)):
        for sample in family.samples:
            labels = values.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return values


def _labels(series: dict[str, dict[str, set[str]]]) -> set[str]:
    return {label for labels in series.values() for label in labels}


def _unknown(query: str, series: dict[str, dict[str, set[str]]]) -> Iterator[str]:
    """Yield the metrics, labels and values of a query that do not exist in any series."""
    for name, matchers in SELECTOR.findall(query):
        if name not in series:
            yield name
            continue
        for label, operator, text in MATCHER.findall(matchers):
            if label in OPEN_LABELS:
                continue
            values = series[name].get(label, set()) | MORE_VALUES.get(label, set())
            for value in text.split("|") if "~" in operator and "(" not in text else [text]:
                if not any(re.fullmatch(value, known) if "~" in operator else value == known for known in values):
                    yield f'{name}{{{label}="{value}"}}'
    grouped = {label.strip() for labels in GROUPED.findall(query) for label in labels.split(",") if label.strip()}
    yield from grouped - _labels(series) - {"instance", "job"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_have_only_fields_known_to_grafana(path: Path) -> None:
    assert faults(_dashboard(path)) == []
    broken = _dashboard(path)
    broken["panels"][1] |= {"gridpos": {}, "title": 5}
    assert len(faults(broken)) == 2


def test_graphs_do_not_skip_data_between_points() -> None:
    """A fixed window shorter than the distance between points, which is hours in a graph of a year, would skip data."""
    graphs = {name: target["expr"] for name, target in EVERY_TARGET.items() if not target.get("instant")}
    assert len(graphs) > 20
    assert {name for name, query in graphs.items() if set(re.findall(r"\[(.+?)\]", query)) - LONG_RANGES} == set()


def test_the_four_dashboards_have_unique_ids_and_the_provisioned_source() -> None:
    loaded = [_dashboard(path) for path in DASHBOARDS]
    assert len({dashboard["uid"] for dashboard in loaded}) == len({dashboard["title"] for dashboard in loaded}) == 4
    source = (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8")
    for dashboard in loaded:
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        for panel in dashboard["panels"]:
            where = panel["gridPos"]
            assert where["x"] + where["w"] <= 24
            if panel["type"] != "row":
                assert f"uid: {panel['datasource']['uid']}" in source


@pytest.fixture
def worker() -> Iterator[str]:
    """Serve the metrics of a worker that does some work at each scrape; return the address."""
    with _worker() as address:
        yield address


@contextmanager
def _worker() -> Iterator[str]:
    metrics = WorkerMetrics()
    for task in (RECONCILE, NIGHTLY):
        metrics.expect_periodic_task(task, lambda: time.time() + 1800)
    metrics.set_model(MODEL, "int8", "CPUExecutionProvider", "passed")
    server, thread = start_http_server(0, "127.0.0.1", _WorkingRegistry(metrics))  # type: ignore[arg-type]
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


class _WorkingRegistry:
    """A registry whose worker counts a photo at each scrape, so that rates are not 0."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Any:
        for stage in PhotoStage:
            with self._metrics.timed(stage):
                self._metrics.count_photo(None)
                self._metrics.observe_photo_age(0.4)
        self._metrics.note_periodic_step(RECONCILE, PeriodicStep.SUCCESS)
        self._metrics.observe_batch(16)
        self._metrics.count_event_messages(published=3, rejected=1)
        self._metrics.set_oldest_message_age("events", 0.5)
        self._metrics.set_oldest_message_age("tasks", 3.5)
        self._metrics.set_queue_depths(dict.fromkeys(QueueRole, 2))
        return self._metrics.registry.collect()


def _record_round(recorder: Recorder, round_: int) -> None:
    """Record one of each kind of record."""
    recorder.pair(f"exact {round_}", predicted=2, expected=2)
    recorder.pair(f"under {round_}", predicted=2, expected=3)
    recorder.pair(f"over {round_}", predicted=3, expected=2)
    recorder.count(f"bin-images/failed {round_}.jpg", reason=Reason.TRUNCATED)
    recorder.expect(f"unread {round_}", reason=MetadataReason.NOT_JSON)
    recorder.audit(f"exact {round_}", 2)
    recorder.audit(f"over {round_}", 2)
    recorder.audit(f"under {round_}", 3, blind=False)


def _random_audits(recorder: Recorder) -> None:
    """Record the minimum number of random audits for estimates."""
    for number in range(MIN_AUDITS):
        recorder.pair(f"drawn {number}", predicted=2, expected=2)
        recorder.audit(f"drawn {number}", 2)
    drawn = select(Bin.bucket, Bin.bin_id, Bin.count_id, Bin.expectation_id).where(Bin.bin_id.startswith("drawn "))
    with recorder.engine.begin() as connection:
        rows = [row._asdict() | {"likelihood": 1.0, "drawn_at": DAY} for row in connection.execute(drawn)]
        connection.execute(insert(AuditDraw), rows)


def _queries_without_data(prometheus: Prometheus) -> list[str]:
    """Return the queries without samples or with a sample that is not a finite number."""
    results = {
        name: prometheus.query(query) for name, query in (EVERY_QUERY | {name: name for name in RECORDED}).items()
    }
    return [
        name
        for name, samples in results.items()
        if not samples or any(sample["value"][1] in ("NaN", "+Inf", "-Inf") for sample in samples)
    ]


def test_every_panel_shows_data(drifting: Running, recorder: Recorder, worker: str, tmp_path: Path) -> None:
    record_photos(recorder.engine, simulated_photos(60, seed=4), prefix="more ")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    drifting.services.drift.update()
    _random_audits(recorder)
    drifting.services.random_audits.update()
    _record_round(recorder, 0)
    monitor = f"{drifting.client.base_url.host}:{drifting.client.base_url.port}"
    with running_prometheus(folder, monitor=monitor, workers=[worker]) as prometheus:
        _until(lambda: prometheus.value('sum(binwatch_comparisons_total{outcome="over"})'), "the first scrape")
        # The first value of a counter is no increase, so record everything again.
        _record_round(recorder, 1)
        record_photos(recorder.engine, simulated_photos(60, seed=5), prefix="yet more ")
        drifting.services.drift.update()
        drifting.services.flags.update()
        _until(lambda: not _queries_without_data(prometheus), lambda: f"no data: {_queries_without_data(prometheus)}")
        assert prometheus.query("ALERTS{alertname='BinwatchDrift', signal='brightness'}")


def test_alerts_fire_for_vanished_targets(monitor: Running, worker: str, tmp_path: Path) -> None:
    """The name of a stopped container vanishes, so no `up` series remains to be 0. Pending alerts suffice here."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    address = f"{monitor.client.base_url.host}:{monitor.client.base_url.port}"
    with _worker() as other, running_prometheus(folder, monitor=address, workers=[worker, other]) as prometheus:
        both_workers = "count_over_time((binwatch_workers:count == 2)[1h:1s])"
        _until(
            lambda: (prometheus.value(both_workers) or 0) >= 30, "half a minute with both"
        )  # otherwise one worker fewer raises no alert
        # On a busy machine a scrape may time out, and an alert is pending until the next one.
        absences = ("BinwatchWorkerGone", "BinwatchNoWorker", "BinwatchMonitorDown")
        _until(lambda: not any(map(prometheus.raised, absences)), "no alert while all answer")
        prometheus.find("binwatch-worker", worker)
        worker_gone = 'last_over_time(ALERTS{alertname="BinwatchWorkerGone"}[1h])'
        _until(lambda: prometheus.query(worker_gone), "an alert of the worker that is gone")
        assert {sample["metric"]["instance"] for sample in prometheus.query(worker_gone)} == {other}
        prometheus.find("binwatch-worker")
        prometheus.find("binwatch-monitor")
        for alert in ("BinwatchNoWorker", "BinwatchMonitorDown"):
            _until(lambda alert=alert: prometheus.raised(alert), f"{alert}, of the last that is gone")
        prometheus.find("binwatch-worker", other)
        prometheus.find("binwatch-monitor", address)
        for alert in ("BinwatchNoWorker", "BinwatchMonitorDown"):
            _until(lambda alert=alert: not prometheus.raised(alert), f"the end of {alert}")


COUNTERS = {
    "sum(increase(binwatch_photos_total{MODEL}[1h]))": 9,
    'sum(increase(binwatch_photos_total{MODEL, outcome="failed"}[1h]))': 2,
    "sum(increase(binwatch_comparisons_total{MODEL}[1h]))": 6,
    'sum(increase(binwatch_comparisons_total{MODEL, outcome="exact"}[1h]))': 3,
    "sum(increase(binwatch_comparisons_within_one_total{MODEL}[1h]))": 5,
    'sum(increase(binwatch_absolute_error_items_total{MODEL, outcome="under"}[1h]))': 3,
    "sum(increase(binwatch_squared_error_total{MODEL}[1h]))": 6,
    "model:binwatch_comparisons:increase1h{MODEL}": 6,
    "model:binwatch_agreement:ratio1d{MODEL}": 0.5,
}
"""Expected results of Prometheus queries for the records of `record_known` of one model."""


def test_increase_equals_the_recorded_numbers(
    bundle: Path, monitor: Running, recorder: Recorder, worker: str, tmp_path: Path
) -> None:
    """From the first photo of each model on, since each counter was scraped with 0 before."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    address = f"{monitor.client.base_url.host}:{monitor.client.base_url.port}"
    with running_prometheus(folder, monitor=address, workers=[worker]) as prometheus:
        for model, record in ((MODEL, record_known), ("promoted", _record_promoted)):
            Store(recorder.engine).use_model(model, None)  # as workers do before the first photo of a model
            of_model = f'model="{model}"'
            _until(
                lambda of_model=of_model: prometheus.value(f"sum(binwatch_comparisons_total{{{of_model}}})") == 0.0,
                "a scrape before the first record",
            )
            record(recorder)
            expected = {query.replace("MODEL", of_model): value for query, value in COUNTERS.items()}

            def wrong(expected: dict[str, float] = expected) -> dict[str, tuple[float | None, float]]:
                measured = {query: prometheus.value(query) for query in expected}
                # Prometheus extrapolates by up to half a scrape interval, which is a few per cent of a short range.
                return {
                    query: (measured[query], value)
                    for query, value in expected.items()
                    if measured[query] is None or measured[query] != pytest.approx(value, rel=0.1)
                }

            _until(lambda: not wrong(), lambda: f"found and wanted: {wrong()}")


def _record_promoted(recorder: Recorder) -> None:
    """Record the same figures as `record_known` for another model."""
    for bin_id, predicted in (("a", 2), ("b", 3), ("c", 1), ("d", 5), ("e", 6), ("f", 5)):
        recorder.count(f"bin-images/{bin_id}.jpg", predicted, model="promoted")
    recorder.count("bin-images/g.jpg", 4, model="promoted")
    recorder.count("bin-images/h.jpg", reason=Reason.TRUNCATED, model="promoted")
    recorder.count("bin-images/i.jpg", reason=Reason.MISSING, etag="", model="promoted")


def _until(condition: Any, otherwise: Any) -> None:
    """Wait for a condition until a deadline."""
    deadline = time.monotonic() + DATA_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(otherwise() if callable(otherwise) else otherwise)
        time.sleep(0.2)  # polling interval
