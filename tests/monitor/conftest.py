"""Fixtures: a monitor on a real socket, records with known figures and a model bundle."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from binwatch.bundle import Calibration
from binwatch.counts import CLASS_INDEXES
from binwatch.errors import MetadataReason, Reason
from binwatch.records.audits import AuditAnswer, add_audit
from binwatch.records.store import NewCount, NewExpectation, Store
from binwatch.settings import load_settings
from monitor.services import Services
from testing.services.monitor import serving_monitor
from tests.calibrations import category
from tests.monitor.drifting import BUCKET, DAY, MODEL, record_photos, simulated_photos, write_bundle

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
"""Accept header of a browser."""
Labels = frozenset[tuple[str, str]]


def jpeg(width: int = 64, height: int = 48, colour: str = "red") -> bytes:
    """Return a JPEG photo of a single colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "JPEG")
    return buffer.getvalue()


class Recorder:
    """Writes to the records as a worker does, with defaults for irrelevant fields."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._store = Store(engine, slicing=load_settings().slicing)
        self._uploads = itertools.count()

    def count(
        self,
        key: str,
        predicted: int | None = None,
        *,
        reason: Reason | None = None,
        detail: str | None = None,
        model: str = MODEL,
        etag: str | None = None,
        version_id: str | None = None,
        bucket: str = BUCKET,
        at: datetime = DAY,
        distribution: list[float] | None = None,
        certain: bool = False,
    ) -> None:
        top, rest = (1.0, 0.0) if certain else (0.7, 0.05)
        probabilities = None if predicted is None else [top if index == predicted else rest for index in range(7)]
        count = NewCount(
            bucket=bucket,
            key=key,
            etag=f"photo-{next(self._uploads)}" if etag is None else etag,
            version_id=version_id,
            model_version=model,
            precision="int8",
            provider="CPUExecutionProvider",
            modified_at=at,
            distribution=distribution,
            predicted=predicted,
            probabilities=probabilities,
            reason=reason,
            detail=detail,
        )
        assert self._store.add_counts([count]) == 1

    def expect(
        self,
        bin_id: str,
        quantity: int | None = None,
        *,
        reason: MetadataReason | None = None,
        at: datetime = DAY,
        bucket: str = BUCKET,
    ) -> None:
        expectation = NewExpectation(
            bucket=bucket,
            bin_id=bin_id,
            source=f"metadata/{bin_id}.json",
            etag=f"expected-{next(self._uploads)}",
            modified_at=at,
            quantity=quantity,
            reason=reason,
        )
        assert self._store.add_expectations([expectation]) == 1

    def audit(
        self, bin_id: str, quantity: int | None, *, blind: bool = True, answer: AuditAnswer = AuditAnswer.COUNT
    ) -> None:
        add_audit(self.engine, BUCKET, bin_id, quantity, answer=answer, blind=blind)

    def calibrate(self, model: str = MODEL, classes: tuple[int, ...] = CLASS_INDEXES) -> None:
        """Record a calibration as a worker does: 94 of 99 photos score 0.3, like a correct count at 70 %."""
        pooled = category((0.3,) * 94 + (0.95,) * 5, classes=classes)
        self._store.use_model(model, Calibration(photos=99, split="test", categories=(pooled,)))

    def pair(self, bin_id: str, predicted: int, expected: int, model: str = MODEL) -> None:
        """Record a count and an expected quantity of a bin."""
        self.count(f"bin-images/{bin_id}.jpg", predicted, model=model)
        self.expect(bin_id, expected)


@dataclass(frozen=True)
class Running:
    """A running monitor with a client for its requests."""

    client: httpx.Client
    services: Services

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def browse(self, path: str = "/") -> httpx.Response:
        """Request a page as a browser does."""
        return self.get(path, Accept=HTML)

    def page(self, path: str = "/") -> str:
        response = self.browse(path)
        assert response.status_code == 200
        return response.text

    def metrics(self) -> dict[str, dict[Labels, float]]:
        """Scrape the metrics: sample name → labels → value."""
        response = self.get("/metrics")
        assert response.status_code == 200
        samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(response.text):
            for sample in family.samples:
                samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return samples

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of one metric."""
        return self.metrics()[name][frozenset(labels.items())]


@contextmanager
def running_monitor() -> Iterator[Running]:
    """Run a monitor with the settings of the environment on a free port until the block ends."""
    with serving_monitor(load_settings()) as (services, client):
        yield Running(client, services)


@pytest.fixture
def recorder(sqlite_records: Engine) -> Recorder:
    """Return a recorder for the records that `monitor` reads."""
    return Recorder(sqlite_records)


@pytest.fixture
def monitor(sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor on empty records in SQLite, without a reachable object store."""
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    with running_monitor() as running:
        yield running


@pytest.fixture
def known_records(recorder: Recorder) -> Recorder:
    """Return a recorder of records with known figures."""
    record_known(recorder)
    return recorder


def record_known(recorder: Recorder) -> None:
    """Record six comparisons, two failures, two unreadable quantities and four audits."""
    recorder.pair("a", predicted=2, expected=2)
    recorder.pair("b", predicted=3, expected=3)
    recorder.pair("c", predicted=1, expected=3)  # under by 2
    recorder.pair("d", predicted=5, expected=4)  # over by 1
    recorder.pair("e", predicted=6, expected=12)  # "more than 5" agrees
    recorder.pair("f", predicted=5, expected=40)  # under by 1 class: 5 and "more than 5"
    recorder.count("bin-images/g.jpg", 4)
    recorder.count("bin-images/h.jpg", reason=Reason.TRUNCATED, detail="the file ends early")
    recorder.count("bin-images/i.jpg", reason=Reason.MISSING, etag="", detail="not there")
    recorder.expect("g", reason=MetadataReason.NOT_JSON)
    recorder.expect("z", reason=MetadataReason.NO_QUANTITY)
    recorder.expect("y", 3)
    recorder.audit("a", 2)  # count and inventory are right
    recorder.audit("c", 3)  # the inventory is right, the count under by 2
    recorder.audit("d", 5)  # the count is right, the inventory under by 1
    recorder.audit("g", 4)  # no expected quantity to judge


@pytest.fixture
def figure(monitor: Running) -> Callable[..., float]:
    """Return a function that reads a metric of the test model."""

    def value(name: str, **labels: str) -> float:
        return monitor.metric(name, model=MODEL, **labels)

    return value


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a bundle of MODEL with a reference, and configure it as model folder."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_bundle(folder)
    monkeypatch.setenv("BINWATCH_MODEL_DIR", str(folder))
    return folder


@pytest.fixture
def drifting(bundle: Path, sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor of 120 photos that are brighter than the reference."""
    record_photos(sqlite_records, simulated_photos(120, seed=1, brighter=0.1))
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    with running_monitor() as running:
        yield running
