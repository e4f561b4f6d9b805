"""Metrics and health checks of a running worker."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from binwatch.errors import MetadataReason, ObjectsError, Reason, SettingsError
from binwatch.events import ObjectCreated
from binwatch.settings import Settings
from binwatch.version import version
from testing.brightness import jpeg
from testing.services.s3 import S3
from worker import health as health_module
from worker.counting import Counting
from worker.health import HealthChecks
from worker.status_server import StatusServer

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"

PHOTO = jpeg(100)


@pytest.fixture
def counting(settings: Settings) -> Iterator[Counting]:
    counting = Counting(settings)
    yield counting
    counting.close()


@pytest.fixture
def parts() -> dict[str, Exception | None]:
    """Return part → the exception that its probe raises."""
    return {"records": None, "objects": None}


@pytest.fixture
def status(counting: Counting, parts: dict[str, Exception | None]) -> Iterator[str]:
    """Run a status server with breakable parts; return its address."""

    def probe(name: str) -> None:
        error = parts[name]
        if error is not None:
            raise error

    probes = {name: lambda name=name: probe(name) for name in parts}
    server = StatusServer("127.0.0.1", 0, counting.metrics.registry, HealthChecks(probes))
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.stop()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(status: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(get(status + "/metrics")[1])
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


def test_metrics_after_processing(counting: Counting, s3: S3, status: str) -> None:
    counting.note_model()
    for key in ("a.jpg", "b.jpg", "c.jpg"):
        s3.put(key, PHOTO)
    s3.put("empty.jpg", b"")
    s3.put("a.json", b'{"EXPECTED_QUANTITY": 1}')
    s3.put("b.json", b"{")
    counting.count([ObjectCreated(s3.bucket, key) for key in ("a.jpg", "empty.jpg", "b.jpg", "c.jpg", "gone.jpg")])
    counting.read_metadata([ObjectCreated(s3.bucket, "a.json"), ObjectCreated(s3.bucket, "b.json")])
    result = samples(status)
    assert result["binwatch_worker_photos_total", labels(outcome="counted", reason="")] == 3
    assert result["binwatch_worker_photos_total", labels(outcome="failed", reason="empty")] == 1
    assert result["binwatch_worker_photos_total", labels(outcome="failed", reason="missing")] == 1
    assert result["binwatch_worker_metadata_files_total", labels(reason="")] == 1
    assert result["binwatch_worker_metadata_files_total", labels(reason="not_json")] == 1
    assert result["binwatch_worker_batch_photos_count", frozenset()] == 1
    assert result["binwatch_worker_batch_photos_sum", frozenset()] == 3
    assert result["binwatch_worker_stage_seconds_count", labels(stage="fetch")] == 5
    assert result["binwatch_worker_stage_seconds_count", labels(stage="decode")] == 4
    assert result["binwatch_worker_stage_seconds_count", labels(stage="infer")] == 1
    assert result["binwatch_worker_stage_seconds_count", labels(stage="record")] == 2
    assert (
        result["binwatch_worker_photo_age_seconds_count", frozenset()] == 4
    )  # the age of the missing photo is unknown
    model = labels(version="brightness-1", precision="int8", provider="CPUExecutionProvider", self_check="absent")
    assert result["binwatch_worker_model_info", model] == 1
    assert result["binwatch_build_info", labels(version=version())] == 1


def test_all_series_exist_at_start(status: str) -> None:
    """Prometheus' increase() misses the first increase of a counter that did not exist before."""
    result = samples(status)
    assert result["binwatch_worker_photos_total", labels(outcome="counted", reason="")] == 0
    for reason in Reason:
        assert result["binwatch_worker_photos_total", labels(outcome="failed", reason=reason)] == 0
    for why in ("", *MetadataReason):
        assert result["binwatch_worker_metadata_files_total", labels(reason=why)] == 0
    for outcome in ("published", "rejected"):
        assert result["binwatch_worker_event_messages_total", labels(outcome=outcome)] == 0
    names = {name for name, _ in result if re.fullmatch(r"binwatch_\w+_total", name)}
    documented = set(
        re.findall(r"^\| `(binwatch_worker_\w+_total)`", METRICS.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert names == documented
    model = labels(version="brightness-1", precision="int8", provider="CPUExecutionProvider", self_check="absent")
    assert result["binwatch_worker_model_info", model] == 1


def test_labels_have_no_bins_or_keys(counting: Counting, s3: S3, status: str) -> None:
    s3.put("bin-4711.jpg", PHOTO)
    counting.count([ObjectCreated(s3.bucket, "bin-4711.jpg")])
    assert "bin-4711" not in get(status + "/metrics")[1]


def test_health_follows_the_probes(
    status: str, parts: dict[str, Exception | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "_CACHE_S", 0.0)
    assert get(status + "/healthz") == (200, '{"healthy": true, "problems": {}}')
    parts["objects"] = ObjectsError("s3://bins: no answer")
    code, body = get(status + "/healthz")
    assert (code, json.loads(body)) == (
        503,
        {"healthy": False, "problems": {"objects": "ObjectsError: s3://bins: no answer"}},
    )
    parts["objects"] = None
    assert get(status + "/healthz")[0] == 200


def test_probes_detect_broken_parts(counting: Counting, s3: S3) -> None:
    assert HealthChecks(counting.probes()).problems() == {}
    s3.client.delete_bucket(Bucket=s3.bucket)
    assert set(HealthChecks(counting.probes()).problems()) == {"objects"}
    s3.client.create_bucket(Bucket=s3.bucket)
    assert HealthChecks(counting.probes()).problems() == {}


def test_frequent_health_checks_are_cached() -> None:
    asked: list[int] = []
    health = HealthChecks({"part": lambda: asked.append(1)})
    for _ in range(5):
        assert health.problems() == {}
    assert len(asked) == 1


def test_occupied_port_is_named(closed_url: str, counting: Counting) -> None:
    port = int(closed_url.rpartition(":")[2])
    with pytest.raises(SettingsError, match=rf"cannot listen on 127\.0\.0\.1 port {port}: .*BINWATCH_WORKER_PORT"):
        StatusServer("127.0.0.1", port, counting.metrics.registry, HealthChecks({}))


def test_hanging_connections_and_probes_do_not_delay_scrapes(counting: Counting) -> None:
    release = threading.Event()
    server = StatusServer("127.0.0.1", 0, counting.metrics.registry, HealthChecks({"part": lambda: release.wait(30)}))
    server.start()
    url = f"http://127.0.0.1:{server.port}"
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    probing = threading.Thread(target=get, args=(url + "/healthz",))
    probing.start()
    try:
        assert get(url + "/metrics")[0] == 200
    finally:
        release.set()
        probing.join(30)
        for client in silent:
            client.close()
        server.stop()


def test_unknown_path_is_not_found(status: str) -> None:
    assert get(status + "/")[0] == 404
