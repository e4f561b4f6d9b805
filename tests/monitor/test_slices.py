"""Figures by slice in metrics, API and page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text, update
from typer.testing import CliRunner

from binwatch.bundle import Calibration
from binwatch.errors import Reason
from binwatch.records.store import Store
from binwatch.records.tables import DriftBatch
from monitor.__main__ import app
from tests.calibrations import category
from tests.monitor.conftest import Labels, Recorder, Running, running_monitor
from tests.monitor.drifting import DAY, MODEL, record_photos, simulated_photos
from tests.monitor.html import Parsed


@pytest.fixture
def sliced(monkeypatch: pytest.MonkeyPatch, records_engine: Engine) -> Iterator[tuple[Recorder, Running]]:
    """Record photos of three cameras: one is always right, one always wrong, one has no expected quantities."""
    monkeypatch.setenv("BINWATCH_SLICE_DEPTH", "1")
    monkeypatch.setenv("BINWATCH_DATABASE_URL", records_engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    recorder = Recorder(records_engine)
    calibration = Calibration(photos=99, split="test", categories=(category((0.3,) * 99),))
    Store(records_engine).use_model(MODEL, calibration)  # every difference is flagged
    for number in range(4):
        recorder.count(f"good/g{number}.jpg", 2)
        recorder.expect(f"g{number}", 2)
        recorder.count(f"bad/b{number}.jpg", 2)
        recorder.expect(f"b{number}", 3 if number else 6)
    recorder.count("new/n.jpg", 2)
    recorder.count("new/m.jpg", reason=Reason.TRUNCATED)
    recorder.count("loose.jpg", 2)
    recorder.audit("b0", 2)
    with running_monitor() as running:
        running.services.flags.update()
        yield recorder, running


def test_metrics_by_slice(sliced: tuple[Recorder, Running]) -> None:
    _, monitor = sliced
    result = {
        (name.removeprefix("binwatch_slice_"), *sorted(dict(labels).values())): value
        for name, of_name in monitor.metrics().items()
        for labels, value in of_name.items()
        if name.startswith("binwatch_slice_")
    }
    assert {labels for labels, value in result.items() if value} == {
        ("photos_total", "counted", "good"), ("photos_total", "bad", "counted"), ("photos_total", "counted", "new"),
        ("photos_total", "failed", "new"), ("photos_total", "counted", "other"),
        ("comparisons_total", "exact", "good"), ("comparisons_total", "bad", "under"),
        ("comparisons_within_one_total", "good"), ("comparisons_within_one_total", "bad"),
        ("flagged_bins", "audited", "bad"), ("flagged_bins", "bad", "open"),
    }  # fmt: skip
    assert result["photos_total", "counted", "good"] == result["comparisons_total", "bad", "under"] == 4
    assert result["comparisons_within_one_total", "bad"] == 3
    assert (result["flagged_bins", "audited", "bad"], result["flagged_bins", "bad", "open"]) == (1, 3)
    assert result["photos_total", "failed", "new"] == 1
    slices = {labels["slice"] for labels in map(dict, monitor.metrics()["binwatch_slice_photos_total"])}
    assert slices == {"good", "bad", "new", "other"}


def test_the_worst_slice_comes_first(sliced: tuple[Recorder, Running]) -> None:
    recorder, monitor = sliced
    recorder.count("few/f.jpg", 2)
    recorder.expect("f", 3)
    view = monitor.get("/api/slices").json()
    assert [item["name"] for item in view["slices"]] == ["bad", "few", "good", "new", "other"]
    bad, new = view["slices"][0], view["slices"][3]
    assert (bad["photos"], bad["failed"], bad["agreement"]["within_one"], bad["unaudited"]) == (4, 0, 0.75, 3)
    assert (new["photos"], new["failed"], new["failed_share"], new["agreement"]["agreement"]) == (1, 1, 0.5, None)
    rows = Parsed(monitor.page("/slices")).text
    assert rows.index("bad") < rows.index("good")
    assert "Slices" in Parsed(monitor.page("/")).text
    assert monitor.get("/api/slices?model=none").status_code == 404


def test_slice_names_are_escaped(sliced: tuple[Recorder, Running]) -> None:
    recorder, monitor = sliced
    name = "<b onclick='x'>\\n\""
    recorder.count(f"{name}/a.jpg", 2)
    assert name not in monitor.page("/slices")
    assert name in Parsed(monitor.page("/slices")).text
    assert monitor.metric("binwatch_slice_photos_total", slice=name, outcome="counted") == 1


def test_slice_figures_are_per_model_and_slice_metrics_of_all_models(sliced: tuple[Recorder, Running]) -> None:
    recorder, monitor = sliced
    recorder.count("good/g0.jpg", 2, model="model-2")
    view = monitor.get("/api/slices").json()
    assert (view["model"], {item["name"]: item["photos"] for item in view["slices"]}["good"]) == ("model-2", 1)
    assert monitor.metric("binwatch_slice_photos_total", slice="good", outcome="counted") == 5


def test_slice_metrics_never_decrease_on_promotion(sliced: tuple[Recorder, Running]) -> None:
    """Slice metrics cover all models: with a single slice, they equal the sum of the metrics by model."""
    recorder, monitor = sliced

    def counters() -> dict[tuple[str, Labels], float]:
        names = [f"binwatch_slice_{name}_total" for name in ("photos", "comparisons", "comparisons_within_one")]
        return {(name, labels): value for name in names for labels, value in monitor.metrics()[name].items()}

    def of_models(name: str) -> float:
        return sum(monitor.metrics()[name].values())

    changes: list[Callable[[], None]] = [
        lambda: Store(recorder.engine).use_model("model-2", None),
        lambda: recorder.count("bad/b1.jpg", 3, model="model-2"),  # right, unlike the first model
        lambda: recorder.count("good/g1.jpg", 4, model="model-2"),
        lambda: recorder.count("new/k.jpg", reason=Reason.FETCH_FAILED, etag="k"),
        lambda: recorder.count("new/k.jpg", 2, etag="k"),  # by the first model: photos that could not be fetched
        lambda: recorder.expect("b1", 5, at=DAY + timedelta(days=1)),
    ]
    for change in changes:
        before = counters()
        change()
        after = counters()
        assert [key for key in before if after[key] < before[key]] == []
        for name in ("comparisons", "comparisons_within_one"):
            of_slices = sum(value for (metric, _), value in after.items() if metric == f"binwatch_slice_{name}_total")
            assert of_slices == of_models(f"binwatch_{name}_total")
    photos, comparisons = "binwatch_slice_photos_total", "binwatch_slice_comparisons_total"
    assert monitor.metric(photos, slice="bad", outcome="counted") == 5
    assert [monitor.metric(photos, slice="new", outcome=item) for item in ("counted", "failed")] == [2, 2]
    assert [monitor.metric(comparisons, slice="bad", outcome=item) for item in ("exact", "under")] == [1, 5]
    assert monitor.metric(comparisons, slice="good", outcome="over") == 1


def test_the_drifted_slice_is_named_everywhere(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, sqlite_records: Engine
) -> None:
    monkeypatch.setenv("BINWATCH_SLICE_PATTERN", "(cam-[0-9])")
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    record_photos(sqlite_records, simulated_photos(300, seed=1), prefix="cam-1-")
    record_photos(sqlite_records, simulated_photos(60, seed=2, brighter=0.2), prefix="cam-2-")
    with running_monitor() as monitor:
        monitor.services.drift.update()
        alarms = monitor.get("/api/drift").json()["alarms"]
        assert [(item["slice"], item["signal"], item["photos"]) for item in alarms] == [("cam-2", "brightness", 60)]
        assert monitor.get("/api/overview").json()["drift"]["slices"] == ["cam-2"]
        raised = {labels for labels, value in monitor.metrics()["binwatch_slice_drift_alarm"].items() if value}
        assert raised == {frozenset({"slice": "cam-2", "signal": "brightness"}.items())}
        assert monitor.metric("binwatch_drift_alarm", signal="brightness") == 0
        page = Parsed(monitor.page("/drift")).text
        assert "Brightness in slice cam-2: 60 photos of different bins" in page
        assert "Slices with an alarm of their own: cam-2." in page
    result = CliRunner().invoke(app, ["drift", "--strict"])
    assert result.exit_code == 1
    assert "DRIFT ALARM: brightness in slice cam-2 since" in result.output
    monkeypatch.delenv("BINWATCH_SLICE_PATTERN")
    result = CliRunner().invoke(app, ["drift"])
    assert "Alarms of slices are not shown: set BINWATCH_SLICE_… here as for the monitor." in result.output
    monkeypatch.setenv("BINWATCH_SLICE_PATTERN", "(cam)-[0-9]")
    assert "Alarms of slices are not shown" in CliRunner().invoke(app, ["drift"]).output, "by another rule"
    with (
        sqlite_records.begin() as connection
    ):  # no slice has had a batch since a day before the last batch of all photos
        closed_at = datetime.now(UTC) - timedelta(days=2)
        connection.execute(update(DriftBatch).where(DriftBatch.slice_id > 0).values(closed_at=closed_at))
    assert "Alarms of slices are not shown" not in CliRunner().invoke(app, ["drift"]).output, "old slices"
    monkeypatch.setenv("BINWATCH_SLICE_PATTERN", "(cam-[0-9])")
    with sqlite_records.begin() as connection:
        connection.execute(update(DriftBatch).values(closed_at=datetime.now(UTC) - timedelta(hours=1)))
        connection.execute(
            text(
                "CREATE TRIGGER full BEFORE INSERT ON drift_batches WHEN NEW.slice_id > 0"
                " BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
            )
        )
    record_photos(sqlite_records, simulated_photos(60, seed=3), prefix="cam-2-more-")
    with running_monitor() as monitor:
        monitor.services.drift.update()
        alarms = monitor.get("/api/drift").json()["alarms"]
        assert [item["slice"] for item in alarms] == ["cam-2"], "from the last batch that could be stored"
        report = monitor.services.drift.report
        assert report is not None
        assert "disk is full" in str(report.problem)


def test_slices_are_absent_without_the_setting(monitor: Running, known_records: Recorder) -> None:
    assert not [name for name in monitor.metrics() if "slice" in name]
    assert monitor.get("/api/slices").json() == {"rule": None, "model": MODEL, "slices": []}
    assert "Photos are not sliced." in Parsed(monitor.page("/slices")).text
    assert "Slices" not in Parsed(monitor.page("/")).text
