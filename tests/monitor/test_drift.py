"""Drift: distances with known values, false alarm rates of thresholds, windows of real records, and verdicts."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, RowMapping, select, text, update
from typer.testing import CliRunner

from binwatch.bundle import EmbeddingReference, Reference
from binwatch.records.tables import Count, DriftBatch
from binwatch.reference import ReferenceData, Signal, make_reference
from binwatch.settings import DriftReference
from monitor import formatting
from monitor.__main__ import app
from monitor.drift import thresholds, windows
from monitor.drift.distances import jensen_shannon, kolmogorov_smirnov, mean_shift
from monitor.drift.estimate import estimated_accuracy
from monitor.drift.judge import MIN_PHOTOS, Verdict, judge
from monitor.drift.report import make_report
from monitor.drift.windows import PhotoSample, Window, read_window
from testing.services.s3 import S3
from tests.monitor.conftest import MODEL, Running, running_monitor
from tests.monitor.drifting import EMBEDDING_SIZE, REFERENCE, record_photos, simulated_photos
from tests.monitor.html import Parsed


def _sample(photos: ReferenceData) -> PhotoSample:
    predicted = photos.probabilities.argmax(axis=1)
    return PhotoSample(
        predicted=predicted,
        confidence=photos.probabilities.max(axis=1),
        expected=photos.labels,
        agreed=int((predicted == photos.labels).sum()),
        properties=dict(photos.properties),
        embeddings=photos.embeddings,
    )


def _verdicts(sample: PhotoSample, reference: Reference | None = REFERENCE) -> dict[Signal, Verdict]:
    return {judgement.signal: judgement.verdict for judgement in judge(sample, reference)}


class TestDistances:
    @pytest.mark.parametrize(
        ("window", "reference", "bits"),
        [([1, 1], [5, 5], 0.0), ([1, 0], [0, 1], 1.0), ([1, 0], [1, 1], 0.31127812)],
    )
    def test_jensen_shannon(self, window: list[int], reference: list[int], bits: float) -> None:
        assert jensen_shannon(np.array(window), np.array(reference)) == pytest.approx(bits)

    def test_kolmogorov_smirnov_matches_scipy(self) -> None:
        stats = pytest.importorskip("scipy.stats")
        random = np.random.default_rng(3)
        quantiles = np.linspace(2, 5, 201)
        values = random.normal(3.5, 1, 300)
        assert kolmogorov_smirnov(values, quantiles) == pytest.approx(
            stats.kstest(values, stats.uniform(2, 3).cdf).statistic
        )

    def test_kolmogorov_smirnov_with_ties_on_both_sides(self) -> None:
        quantiles = np.quantile([1.0] * 50 + [2.0] * 50, np.linspace(0, 1, 201))
        assert kolmogorov_smirnov(np.array([1.0] * 30 + [2.0] * 30), quantiles) == pytest.approx(0, abs=0.02)
        assert kolmogorov_smirnov(np.array([1.0] * 30), quantiles) == pytest.approx(0.5, abs=0.02)
        assert kolmogorov_smirnov(np.array([0.0] * 9), quantiles) == 1
        assert kolmogorov_smirnov(np.array([3.0] * 9), quantiles) == 1

    def test_a_reference_of_one_value(self) -> None:
        quantiles = np.full(201, 7.0)
        assert kolmogorov_smirnov(np.full(60, 7.0), quantiles) == 0
        assert kolmogorov_smirnov(np.full(60, 7.5), quantiles) == 1

    def test_mean_shift_is_in_standard_deviations(self) -> None:
        where = EmbeddingReference(mean=[1.0, 1.0], axes=[[0.5, 0.0]])
        assert mean_shift(np.array([[3.0, 9.0], [3.0, -9.0]]), where) == pytest.approx(1.0)


class TestThresholds:
    @pytest.mark.parametrize("photos", [50, 300])
    def test_false_alarm_rate_matches_the_level(self, photos: int) -> None:
        """At a level of 10 %, 5 to 16 % of 400 windows exceed the threshold (five standard deviations)."""
        random = np.random.default_rng(5)
        hits = np.zeros(3)
        shares = np.array([0.02, 0.1, 0.2, 0.3, 0.2, 0.1, 0.08])
        for _ in range(400):
            reference = random.normal(size=500)
            distance = kolmogorov_smirnov(random.normal(size=photos), np.quantile(reference, np.linspace(0, 1, 201)))
            hits[0] += distance > thresholds.kolmogorov_smirnov_threshold(500, photos, 0.1)
            counts = random.multinomial(500, shares)
            divergence = jensen_shannon(random.multinomial(photos, shares), counts)
            hits[1] += divergence > thresholds.jensen_shannon_threshold(tuple(500 * shares), 500, photos, 0.1)
            spread = _observed_shift(random, photos)
            hits[2] += spread > thresholds.mean_shift_threshold(500, photos, 4, 0.1)
        assert all(hits / 400 >= 0.05), hits / 400
        assert all(hits / 400 <= 0.16), hits / 400

    def test_thresholds_decrease_with_window_size(self) -> None:
        counts = tuple(REFERENCE.labels)
        for threshold in (
            lambda n: thresholds.kolmogorov_smirnov_threshold(1000, n, 0.001),
            lambda n: thresholds.jensen_shannon_threshold(counts, 1000, n, 0.001),
            lambda n: thresholds.mean_shift_threshold(1000, n, 16, 0.001),
        ):
            values = [threshold(n) for n in (50, 100, 200, 1000, 2000)]
            assert values == sorted(values, reverse=True)


def _observed_shift(random: np.random.Generator, photos: int) -> float:
    observed = ReferenceData(np.full((500, 7), 1 / 7), np.zeros(500, int), random.normal(size=(500, 4)), {})
    where = make_reference(observed).embedding
    assert where is not None
    return mean_shift(random.normal(size=(photos, 4)), where)


class TestVerdicts:
    def test_similar_photos_are_steady(self) -> None:
        assert set(_verdicts(_sample(simulated_photos(300, seed=1))).values()) == {Verdict.STEADY}

    def test_only_the_changed_signal_drifts(self) -> None:
        verdicts = _verdicts(_sample(simulated_photos(300, seed=1, brighter=0.1)))
        assert [signal for signal, verdict in verdicts.items() if verdict is Verdict.DRIFTED] == [Signal.BRIGHTNESS]

    def test_a_shifted_embedding_drifts(self) -> None:
        sample = _sample(simulated_photos(300, seed=1))
        sample.embeddings[:, 2] += 1.5
        assert _verdicts(sample)[Signal.EMBEDDING] is Verdict.DRIFTED

    def test_a_single_class_is_drift(self) -> None:
        photos = simulated_photos(100, seed=1)
        probabilities = np.tile([1.0, 0, 0, 0, 0, 0, 0], (100, 1))
        verdicts = _verdicts(
            _sample(
                ReferenceData(probabilities, np.zeros(100, int), np.zeros((100, EMBEDDING_SIZE)), photos.properties)
            )
        )
        for signal in (Signal.PREDICTED, Signal.EXPECTED, Signal.CONFIDENCE, Signal.EMBEDDING):
            assert verdicts[signal] is Verdict.DRIFTED

    def test_too_few_photos_are_not_judged(self) -> None:
        assert set(_verdicts(_sample(simulated_photos(MIN_PHOTOS - 1))).values()) == {Verdict.NOT_ENOUGH_PHOTOS}
        assert set(_verdicts(_sample(simulated_photos(MIN_PHOTOS))).values()) == {Verdict.STEADY}

    def test_signals_without_a_reference_are_not_judged(self) -> None:
        sample = _sample(simulated_photos(100))
        assert set(_verdicts(sample, None).values()) == {Verdict.NO_REFERENCE}
        old = Reference(photos=500, predicted=[500], labels=[500], confidence=[0.1, 0.9])
        assert _verdicts(sample, old)[Signal.EMBEDDING] is Verdict.NO_REFERENCE

    def test_a_reference_of_few_bins_is_small(self) -> None:
        sample = _sample(simulated_photos(100))
        small = make_reference(simulated_photos(60))
        assert set(_verdicts(sample, small).values()) == {Verdict.SMALL_REFERENCE}
        assert set(_verdicts(sample, small.model_copy(update={"photos": 500, "groups": 99})).values()) == {
            Verdict.SMALL_REFERENCE
        }
        assert set(_verdicts(sample, None).values()) == {Verdict.NO_REFERENCE}

    def test_rounding_in_the_card_is_not_drift(self) -> None:
        """For photos with the shape 4:3, the card has 1.33333 and the records have 1.3333333333333333."""
        photos = simulated_photos(300)
        shape = np.full(300, 4 / 3)
        observed = ReferenceData(photos.probabilities, photos.labels, photos.embeddings, {Signal.SHAPE: shape})
        (judgement,) = [
            item for item in judge(_sample(observed), make_reference(observed)) if item.signal is Signal.SHAPE
        ]
        assert (judgement.verdict, judgement.distance) == (Verdict.STEADY, 0)

    def test_embeddings_of_another_size_are_not_compared(self) -> None:
        photos = simulated_photos(100)
        other = ReferenceData(photos.probabilities, photos.labels, np.ones((100, 3)), photos.properties)
        assert _verdicts(_sample(other))[Signal.EMBEDDING] is Verdict.NO_REFERENCE


def test_estimated_accuracy_follows_the_reference_at_equal_confidence() -> None:
    sample = _sample(simulated_photos(5000, seed=2))
    assert estimated_accuracy(sample, make_reference(simulated_photos(5000))) == pytest.approx(
        sample.agreed / 5000, abs=0.03
    )
    assert estimated_accuracy(sample, None) == pytest.approx(float(sample.confidence.mean()))
    assert estimated_accuracy(_sample(simulated_photos(1)), REFERENCE) is not None


def test_a_reference_of_unusual_photos_is_valid_json() -> None:
    odd = ReferenceData(np.eye(7)[[0, 0]], np.array([0, 0]), np.zeros((2, EMBEDDING_SIZE)), {})
    reference = make_reference(odd)
    assert reference.embedding is None, "nothing varies"
    assert Reference.model_validate_json(reference.model_dump_json()) == reference


def _read(engine: Engine, window: Window, now: datetime | None = None) -> PhotoSample:
    with engine.connect() as connection:
        return read_window(connection, window, MODEL, now or datetime.now(UTC))


def test_windows_contain_the_recorded_photos(records_engine: Engine) -> None:
    photos = simulated_photos(60)
    record_photos(records_engine, photos)
    record_photos(records_engine, simulated_photos(5), model="other", prefix="other ")
    for window in Window:
        sample = _read(records_engine, window)
        assert sample.size == len(sample.expected) == 60
        assert np.sort(sample.confidence) == pytest.approx(np.sort(photos.probabilities.max(axis=1)))
        assert sample.agreed == int((photos.probabilities.argmax(axis=1) == photos.labels).sum())
        assert sample.embeddings.shape == (60, EMBEDDING_SIZE)
        assert {signal: len(values) for signal, values in sample.properties.items()} == dict.fromkeys(
            photos.properties, 60
        )
    later = datetime.now(UTC) + timedelta(hours=2)
    assert _read(records_engine, Window.HOUR, later).size == 0
    assert _read(records_engine, Window.DAY, later).size == 60


def test_a_window_has_one_photo_per_bin(sqlite_records: Engine) -> None:
    record_photos(sqlite_records, simulated_photos(10))
    with sqlite_records.begin() as connection:
        connection.execute(text("UPDATE counts SET bin_id = '0' WHERE id > 4"))
    assert _read(sqlite_records, Window.LATEST).size == 4


def test_a_large_window_is_sampled(records_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOW_PHOTOS", 40)
    monkeypatch.setattr(windows, "_CHUNK_SIZE", 30)
    record_photos(records_engine, simulated_photos(200))
    first, second = _read(records_engine, Window.DAY), _read(records_engine, Window.DAY)
    assert first.size == 40
    assert np.array_equal(first.confidence, second.confidence), "the same records give the same sample"


def test_damaged_rows_are_left_out(sqlite_records: Engine) -> None:
    record_photos(sqlite_records, simulated_photos(60))
    damaged = [json.dumps([1, 0]), "null", json.dumps([2.0] * 7), json.dumps({"a": 1})]
    with sqlite_records.begin() as connection:
        for number, value in enumerate(damaged, start=1):
            connection.execute(
                text("UPDATE counts SET probabilities = :value WHERE id = :id"), {"value": value, "id": number}
            )
        connection.execute(text("UPDATE counts SET brightness = 9e999, height = 0 WHERE id = 10"))
        connection.execute(text("UPDATE counts SET embedding = :v WHERE id = 11"), {"v": b"\x00\x7e" * EMBEDDING_SIZE})
        connection.execute(text("UPDATE counts SET embedding = NULL WHERE id = 12"))
        connection.execute(text("UPDATE counts SET embedding = :v WHERE id = 13"), {"v": b"\x00\x00"})
    sample = _read(sqlite_records, Window.LATEST)
    assert sample.size == 56
    assert len(sample.properties[Signal.BRIGHTNESS]) == len(sample.properties[Signal.SHAPE]) == 55
    assert len(sample.embeddings) == 53


def test_a_scrape_shows_the_report(drifting: Running) -> None:
    assert "binwatch_drift_distance" not in drifting.metrics(), "no report before the first check"
    drifting.services.drift.update()
    for window in Window:
        assert drifting.metric("binwatch_window_photos", window=window) == 120
        assert drifting.metric("binwatch_window_compared_photos", window=window) == 120
        where = {"window": window, "signal": Signal.BRIGHTNESS}
        assert drifting.metric("binwatch_drift_verdict", **where, verdict=Verdict.DRIFTED) == 1
        assert drifting.metric("binwatch_drift_distance", **where) > drifting.metric(
            "binwatch_drift_threshold", **where
        )
        where = {"window": window, "signal": Signal.CONTRAST}
        assert drifting.metric("binwatch_drift_verdict", **where, verdict=Verdict.STEADY) == 1
    assert drifting.metric("binwatch_drift_alarm", signal=Signal.BRIGHTNESS) == 1
    assert drifting.metric("binwatch_drift_alarm", signal=Signal.CONTRAST) == 0
    agreement = drifting.metric("binwatch_window_agreement_ratio", window=Window.DAY)
    assert drifting.metric("binwatch_window_estimated_accuracy_ratio", window=Window.DAY) == pytest.approx(
        agreement, abs=0.15
    )


def test_the_report_disappears_during_an_outage_and_returns(drifting: Running, tmp_path: Path) -> None:
    drift = drifting.services.drift
    drift.update()
    database, moved_database = tmp_path / "records.db", tmp_path / "away.db"
    database.rename(moved_database)
    drift.update()
    assert drift.report is None
    moved_database.rename(database)
    drift.update()
    assert drift.report is not None


def test_windows_are_shown_and_the_problem_is_named_if_batches_cannot_be_written(
    drifting: Running, sqlite_records: Engine
) -> None:
    with sqlite_records.begin() as connection:
        connection.execute(
            text("CREATE TRIGGER full BEFORE INSERT ON drift_batches BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        )
    drifting.services.drift.update()
    where = {"window": Window.HOUR, "signal": Signal.BRIGHTNESS}
    assert drifting.metric("binwatch_drift_verdict", **where, verdict=Verdict.DRIFTED) == 1
    assert "binwatch_drift_update_timestamp_seconds" not in drifting.metrics(), "BinwatchDriftStale has to fire"
    assert drifting.get("/api/drift").json()["state"] == "unwritable"
    assert "Alarms are not up to date" in drifting.page("/drift")
    report = drifting.services.drift.report
    assert report is not None
    assert "disk is full" in str(report.problem)


def _batches(engine: Engine) -> list[RowMapping]:
    with engine.connect() as connection:
        return list(connection.execute(select(DriftBatch.__table__)).mappings())


def test_the_command_shows_the_alarms_of_the_monitor(
    drifting: Running, sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regardless of its own settings, it closes no batch and ends no alarm."""
    drift = partial(CliRunner().invoke, app, ["drift", "--strict"], env={"COLUMNS": "200"})
    result = drift()
    assert (result.exit_code, _batches(sqlite_records)) == (0, [])
    assert "No drift alarm is raised: the monitor has closed no batch of photos yet." in result.stdout
    drifting.services.drift.update()
    batches = _batches(sqlite_records)
    closed = formatting.moment(batches[0]["closed_at"])
    result = drift()
    assert result.exit_code == 1
    assert "DRIFT ALARM: brightness since 20" in result.stdout
    assert f"Drift alarms are as of the last batch of photos, {closed}." in result.stdout
    record_photos(sqlite_records, simulated_photos(60, seed=2), prefix="more ")
    with sqlite_records.begin() as connection:
        connection.execute(update(DriftBatch).values(closed_at=datetime.now(UTC) - timedelta(minutes=29)))
    batches = _batches(sqlite_records)
    monkeypatch.setenv("BINWATCH_DRIFT_REFERENCE", "same_hours")
    result = drift()
    assert (result.exit_code, _batches(sqlite_records)) == (1, batches)
    assert "DRIFT ALARM: brightness since 20" in result.stdout
    assert (
        "follow BINWATCH_DRIFT_REFERENCE=training, the monitor's setting then (here: same_hours): 1 alarm raised."
        in result.stdout
    )
    assert "not up to date" not in result.stdout
    drifting.services.drift.update()
    assert drifting.metric("binwatch_drift_alarm", signal=Signal.BRIGHTNESS) == 1


def test_the_command_reports_overdue_batches(drifting: Running, sqlite_records: Engine) -> None:
    drift = partial(CliRunner().invoke, app, ["drift", "--strict"], env={"COLUMNS": "200"})

    def photos_are(minutes: int) -> None:
        with sqlite_records.begin() as connection:
            connection.execute(update(Count).values(recorded_at=datetime.now(UTC) - timedelta(minutes=minutes)))

    def last_batch_is(minutes: int) -> None:
        with sqlite_records.begin() as connection:
            closed_at = datetime.now(UTC) - timedelta(minutes=minutes)
            connection.execute(update(DriftBatch).values(closed_at=closed_at))

    photos_are(14)
    assert "not up to date" not in drift().stdout, "the monitor has not had the time"
    photos_are(16)
    result = drift()
    assert result.exit_code == 1
    assert "Drift alarms are not up to date: photos recorded before 20" in result.stdout
    drifting.services.drift.update()
    last_batch_is(45)
    assert "not up to date" not in drift().stdout, "there are no newer photos"
    record_photos(sqlite_records, simulated_photos(60, seed=2), prefix="more ")
    assert "not up to date" not in drift().stdout, "the monitor has not had the time"
    photos_are(16)
    assert "not up to date" in drift().stdout
    records = drifting.services.records
    assert make_report(records, lambda _: None).problem, "the last batch shows that there is a reference"
    with sqlite_records.begin() as connection:
        connection.execute(update(DriftBatch).values(state={"reference": "same_hours"}))
    assert make_report(records, lambda _: None).problem is None, "compared with photos alone: they wait for a reference"
    assert make_report(records, lambda _: None, DriftReference.SAME_HOURS).problem, "they do not wait for one"
    last_batch_is(29)
    assert "not up to date" not in drift().stdout, "the next batch was not due before"


@pytest.mark.parametrize("by", DriftReference)
def test_batches_wait_for_a_temporarily_unavailable_bundle(
    drifting: Running,
    sqlite_records: Engine,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3: S3,
    by: DriftReference,
) -> None:
    """They do not wait for a bundle that does not exist: then there is no reference."""
    card = (bundle / "card.json").read_bytes()
    shutil.rmtree(bundle)
    monkeypatch.setenv("BINWATCH_DRIFT_REFERENCE", by)
    with running_monitor() as monitor:
        monitor.services.drift.update()
        assert _batches(sqlite_records) == []
        assert monitor.get("/api/drift").json()["state"] == "unwritable"
        assert "the model's bundle could not be fetched" in Parsed(monitor.page("/drift")).text
        assert "binwatch_drift_update_timestamp_seconds" not in monitor.metrics(), "BinwatchDriftStale has to fire"
    with sqlite_records.begin() as connection:
        connection.execute(update(Count).values(recorded_at=datetime.now(UTC) - timedelta(minutes=16)))
    strict = partial(CliRunner().invoke, app, ["drift", "--strict"])
    assert strict().exit_code == 1, "no alarm can be raised"
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("BINWATCH_BUCKET", s3.bucket)
    is_judged = by is DriftReference.SAME_HOURS
    assert strict().exit_code == is_judged, "without a reference there are no alarms to wait for"
    with running_monitor() as monitor:
        monitor.services.drift.update()
        assert len(_batches(sqlite_records)) == is_judged
        assert monitor.get("/api/drift").json()["state"] == ("collecting" if is_judged else "no_reference")
        s3.put(f"models/{MODEL}/card.json", card)
        monitor.services.drift.update()
        assert len(_batches(sqlite_records)) == 1
        assert monitor.get("/api/drift").json()["state"] == ("collecting" if is_judged else "drifted")


def test_the_drift_thread_survives_a_failed_report(
    drifting: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drift = drifting.services.drift
    answers = iter([ValueError("odd"), None])
    make, done = drift.make, threading.Event()

    def odd_at_first() -> object:
        answer = next(answers, None)
        if answer:
            raise answer
        done.set()
        return make()

    monkeypatch.setattr(drift, "make", odd_at_first)
    monkeypatch.setattr(drift, "_interval_s", 0.01)
    drift.start()
    assert done.wait(30)
    drift.stop()
    assert "could not be made" in caplog.text


def test_the_command_prints_the_report(drifting: Running) -> None:
    drifting.services.drift.update()
    result = CliRunner().invoke(app, ["drift"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert CliRunner().invoke(app, ["drift", "--strict"]).exit_code == 1
    assert "DRIFT ALARM: brightness since 20" in result.stdout
    assert "raised by 120 photos" in result.stdout
    rows = {line.split()[1]: line for line in result.stdout.splitlines() if line.startswith("│")}
    assert rows["brightness"].count("beyond") == len(Window)
    assert rows["contrast"].count("steady") == len(Window)
    assert "estimated accuracy" in result.stdout


def test_the_command_names_what_is_missing(drifting: Running, bundle: Path) -> None:
    shutil.rmtree(bundle)
    result = CliRunner().invoke(app, ["drift"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "no reference in the bundle" in result.stdout
    assert (
        f"The reference of model {MODEL} is not available: s3://binwatch/models/{MODEL}/card.json: Could not"
        in result.stdout
    )


def test_empty_records_are_no_error(monitor: Running) -> None:
    monitor.services.drift.update()
    samples = monitor.metrics()
    assert "binwatch_drift_update_timestamp_seconds" in samples
    assert "binwatch_drift_verdict" not in samples
    assert "Nothing has been recorded" in CliRunner().invoke(app, ["drift"]).stdout
