"""Tests of the serving app's routes over ASGI. The server process is tested in tests/sagemaker."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from binwatch.bundle import Bundle
from binwatch.embedding import unpack
from binwatch.errors import BundleError, ObjectsError
from binwatch.sagemaker.settings import TransformEnvironment
from binwatch.settings import Settings
from testing.brightness import brightness_of, jpeg, probabilities_of
from testing.services.faulty_s3 import FaultyS3, refuse
from testing.services.s3 import S3
from worker.engine import Engine
from worker.inference_sessions import ModelOutput
from worker.metrics import WorkerMetrics
from worker.sagemaker.serving.answers import MALFORMED, Answer
from worker.sagemaker.serving.app import App
from worker.sagemaker.serving.bodies import MAX_BODY_BYTES, MAX_LINKS
from worker.sagemaker.serving.counter import PhotoCounter
from worker.sagemaker.serving.model import find_bundle

WITHIN_S = 30


class Service:
    """A serving app with a model and a client."""

    def __init__(self, settings: Settings, environment: TransformEnvironment | None = None) -> None:
        self.metrics = WorkerMetrics()
        self.app = App(settings, environment or TransformEnvironment(), self.metrics)
        self.engine = Engine(Bundle(settings.model_dir), threads=1)
        self.counter = PhotoCounter(self.engine, settings, self.metrics)
        self.app.counter = self.counter

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://container") as client:
            return await asyncio.wait_for(client.request(method, path, **options), WITHIN_S)

    def get(self, path: str) -> httpx.Response:
        return asyncio.run(self.send("GET", path))

    def post(self, body: bytes, kind: str = "application/x-image", **headers: str) -> httpx.Response:
        headers = {"content-type": kind, **headers}
        return asyncio.run(self.send("POST", "/invocations", content=body, headers=headers))

    def links(self, *links: str) -> httpx.Response:
        return self.post("\n".join(json.dumps({"photo": link}) for link in links).encode(), "application/jsonlines")

    def samples(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.get("/metrics").text)
        return {
            "/".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    service = Service(settings)
    yield service
    service.counter.close()


def reasons(response: httpx.Response) -> list[str | None]:
    assert response.status_code == 200, response.text
    return [Answer.model_validate_json(line).reason for line in response.text.splitlines()]


def test_answer_equals_local_count(service: Service) -> None:
    data = jpeg(brightness_of(3), side=300)
    response = service.post(data)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    answer = Answer.model_validate_json(response.content)
    assert (answer.model, answer.precision, answer.provider) == ("brightness-1", "int8", "CPUExecutionProvider")
    assert (answer.predicted, answer.count, answer.reason) == (3, "3", None)
    assert answer.probabilities == pytest.approx(probabilities_of(brightness_of(3)), abs=1e-6)
    assert answer.confidence == answer.probabilities[3]
    assert (answer.width, answer.height, answer.bytes) == (300, 300, len(data))
    assert answer.md5 == hashlib.md5(data).hexdigest()
    assert answer.brightness == pytest.approx(brightness_of(3) / 255, abs=1e-3)
    assert unpack(answer.embedding) == pytest.approx([brightness_of(3)], abs=0.1)


def test_png_with_other_content_type(service: Service) -> None:
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (brightness_of(5),) * 3).save(file, "PNG")
    for kind in ("image/png", "image/jpeg", "application/octet-stream", ""):
        answer = Answer.model_validate_json(service.post(file.getvalue(), kind).content)
        assert (answer.predicted, answer.width, answer.height) == (5, 30, 20)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not a photo", "not_an_image"),
        (jpeg(100, side=150)[:-100], "truncated"),
        (b"\xff\xd8\xff nonsense", "corrupt"),
        (b"%PDF-1.7", "unsupported_format"),
        (jpeg(100, side=200), "too_many_pixels"),
        (b"x" * 10_001, "too_large"),
    ],
)
def test_uncountable_photo_is_answered_with_200_and_reason(settings: Settings, data: bytes, reason: str) -> None:
    service = Service(settings.model_copy(update={"max_photo_bytes": 10_000, "max_photo_pixels": 30_000}))
    assert reasons(service.post(data)) == [reason]
    assert service.samples()[f"binwatch_worker_photos_total/failed/{reason}"] == 1
    service.counter.close()


def test_links(service: Service, s3: S3) -> None:
    s3.put("a b/ü+%.jpg", jpeg(brightness_of(2)))
    link = f"s3://{s3.bucket}/a b/ü+%.jpg"
    response = service.post(json.dumps({"photo": link}).encode(), "application/json")
    answer = Answer.model_validate_json(response.content)
    assert (answer.photo, answer.predicted, answer.reason) == (link, 2, None)


def test_json_lines_are_answered_in_order(service: Service, s3: S3) -> None:
    for number in range(40):
        s3.put(f"{number}.jpg", jpeg(brightness_of(number % 7)))
    links = [f"s3://{s3.bucket}/{number}.jpg" for number in range(41)]  # the last object is missing
    response = service.links(*links)
    answers = [Answer.model_validate_json(line) for line in response.text.splitlines()]
    assert response.headers["content-type"] == "application/jsonlines"
    assert [answer.photo for answer in answers] == links
    assert [answer.predicted for answer in answers] == [*(number % 7 for number in range(40)), None]
    assert answers[40].reason == "missing"


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b'"text"',
        b'{"photo": 1}',
        b'{"photo": "http://a/b.jpg"}',
        b'{"photo": "s3://b"}',
        b"\xff",
        b"[" * 100_000,
        b'{"photo":' * 100_000,
        b'{"photo": "s3://bins/\\ud800.jpg"}',
        b'{"photo": "s3://bins/a\\udfff\\ud800.jpg"}',
        b'{"photo": ' + b"9" * 10_000 + b"}",
        b'{"photo": 1e999}',
        b'{"photo": NaN}',
        b'{"photo": null}',
        b'{"photo": ["s3://bins/a.jpg"]}',
        b'{"photo": {"photo": "s3://bins/a.jpg"}}',
        b'{"photo": "s3://bins/' + b"a" * 1025 + b'"}',
        b"\x00",
        b"null",
    ],
    ids=lambda line: repr(line[:24]),
)
def test_invalid_line_does_not_fail_others(service: Service, s3: S3, line: bytes) -> None:
    s3.put("a.jpg", jpeg(100))
    link = json.dumps({"photo": f"s3://{s3.bucket}/a.jpg"}).encode()
    response = service.post(b"\n".join([link, line, b"", link]), "application/jsonlines; charset=utf-8")
    assert reasons(response) == [None, MALFORMED, None]


def test_only_links_to_allowed_keys_are_followed(settings: Settings, s3: S3) -> None:
    photo = jpeg(brightness_of(2))
    s3.client.create_bucket(Bucket=s3.bucket + "-other")
    s3.client.put_object(Bucket=s3.bucket + "-other", Key="bin-images/a.jpg", Body=photo)
    keys = ["bin-images/a.jpg", "new/b.jpg", "bin-imagesa.jpg", "private/a.jpg", "models/a.jpg", "nightly/a.jpg"]
    for key in keys:
        s3.put(key, photo)
    steps = ["bin-images/../private/a.jpg", "bin-images/./a.jpg"]
    links = [f"s3://{s3.bucket}/{key}" for key in [*keys, *steps]]
    refused_links = [
        f"s3://{s3.bucket}-other/bin-images/a.jpg",
        "s3://no-such-bucket-at-all/bin-images/a.jpg",
        "s3://../a",
    ]
    service = Service(settings.model_copy(update={"serve_prefixes": "bin-images/, new/,models/"}))
    assert reasons(service.links(*links, *refused_links)) == [None, None, *["forbidden"] * 9]
    service.counter.close()
    service = Service(settings)  # by default, everything except models and nightly runs
    assert reasons(service.links(*links, *refused_links)) == [None] * 4 + ["forbidden"] * 7
    assert "private" not in json.loads(service.links(f"s3://{s3.bucket}/models/private").text)["detail"]
    service.counter.close()


@pytest.mark.parametrize("data", [b"a secret", b"II*\x00 secret", b"\xff\xd8\xff secret", b"GIF89a secret"])
def test_answer_does_not_describe_object_that_is_not_a_photo(service: Service, s3: S3, data: bytes) -> None:
    s3.put("a.txt", data)
    answer = json.loads(service.links(f"s3://{s3.bucket}/a.txt").text)
    assert answer.pop("reason") in {"not_an_image", "unsupported_format", "corrupt"}
    assert answer == {
        "photo": f"s3://{s3.bucket}/a.txt", "model": "brightness-1", "precision": "int8",
        "provider": "CPUExecutionProvider", "detail": "the object is not a photo that can be counted",
    }  # fmt: skip


def test_request_without_valid_link_is_400_except_in_transform_job(settings: Settings) -> None:
    service = Service(settings)
    for body in (b"", b"{}", b"[]"):
        response = service.post(body, "application/json")
        assert (response.status_code, Answer.model_validate_json(response.content).reason) == (400, MALFORMED)
    service.counter.close()
    in_batch = Service(settings, TransformEnvironment(batch=True))
    assert reasons(in_batch.post(b"{}", "application/json")) == [MALFORMED]
    in_batch.counter.close()


def test_outage_of_s3_is_503(settings: Settings, faulty_s3: FaultyS3) -> None:
    faulty_s3.answer = refuse(503, "SlowDown")
    service = Service(settings.model_copy(update={"s3_endpoint_url": faulty_s3.endpoint_url}))
    response = service.links(*(f"s3://{settings.bucket}/{name}.jpg" for name in "ab"))
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json() == {"error": "S3 did not return the photos; try again"}
    service.counter.close()


def test_object_that_s3_does_not_return_does_not_fail_other_lines(
    service: Service, s3: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    s3.put("a.jpg", jpeg(100))
    fetch, fetched = service.counter._objects.fetch, []

    def refused(bucket: str, key: str, **options: Any) -> Any:
        fetched.append(key)
        if key == "broken.jpg":
            raise ObjectsError("s3://bins/broken.jpg: 500 of 10.0.0.1")
        if key == "odd.jpg":
            raise RuntimeError("nobody thought of this")
        return fetch(bucket, key, **options)

    monkeypatch.setattr(service.counter._objects, "fetch", refused)
    a, broken, odd = (f"s3://{s3.bucket}/{name}.jpg" for name in ("a", "broken", "odd"))
    response = service.links(a, broken, odd, a)
    assert reasons(response) == [None, "unavailable", "internal_error", None]
    assert "10.0.0.1" not in response.text
    assert "10.0.0.1" in caplog.text
    fetched.clear()
    assert reasons(service.links(a, *[broken] * 100)) == [None, *["unavailable"] * 100]
    assert len(fetched) == 64  # all of the second 32 were missing, so the rest was not requested
    assert service.links(broken, odd).status_code == 503
    assert service.counter._fetched_bytes.free == service.counter._fetched_bytes.total


def test_unfinished_bodies_stay_within_memory_budget(settings: Settings) -> None:
    """Simulate 128 clients that send 19 MB each and then stall."""
    service = Service(settings.model_copy(update={"serve_memory_bytes": 2**20, "max_photo_bytes": 400_000}))
    photo = jpeg(brightness_of(5))

    async def run() -> tuple[list[httpx.Response], httpx.Response]:
        go_on = asyncio.Event()

        async def unfinished() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield bytes(10_000)
            await go_on.wait()
            yield bytes(10_000)

        sent = [asyncio.create_task(service.send("POST", "/invocations", content=unfinished())) for _ in range(16)]
        while sum(task.done() for task in sent) < 13:
            assert 0 <= service.app._body_bytes.free <= 2**20
            await asyncio.sleep(0)
        within = await service.send("POST", "/invocations", content=photo)
        go_on.set()
        return await asyncio.gather(*sent), within

    responses, within = asyncio.run(asyncio.wait_for(run(), WITHIN_S))
    assert sorted(response.status_code for response in responses) == [200] * 3 + [503] * 13
    assert {response.headers["retry-after"] for response in responses if response.status_code == 503} == {"1"}
    assert reasons(within) == [None]
    assert service.app._body_bytes.free == 2**20
    assert service.samples()["binwatch_worker_refused_requests_total"] == 13
    service.counter.close()


def test_linked_photos_wait_for_memory(settings: Settings, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        s3.put(f"{number}.jpg", jpeg(brightness_of(number % 7)))
    service = Service(settings.model_copy(update={"serve_memory_bytes": 2_000_000, "max_photo_bytes": 1_000_000}))
    fetch, at_once, lock = service.counter._objects.fetch, [0], threading.Lock()

    def counted(*location: Any, **options: Any) -> Any:
        with lock:
            at_once.append(at_once[-1] + 1)
        try:
            return fetch(*location, **options)
        finally:
            with lock:
                at_once.append(at_once[-1] - 1)

    monkeypatch.setattr(service.counter._objects, "fetch", counted)
    links = [f"s3://{s3.bucket}/{number}.jpg" for number in range(12)]
    answers = [Answer.model_validate_json(line) for line in service.links(*links).text.splitlines()]
    assert [answer.predicted for answer in answers] == [number % 7 for number in range(12)]
    assert max(at_once) <= 2
    assert service.counter._fetched_bytes.free == 2_000_000
    service.counter.close()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("GET", "/invocations", {}, 405),
        ("POST", "/ping", {}, 405),
        ("POST", "/invocations", {"accept": "text/csv"}, 406),
        ("POST", "/invocations", {"accept": "application/jsonlines"}, 406),
        ("POST", "/invocations", {"content-length": str(MAX_BODY_BYTES + 1)}, 413),
    ],
)
def test_refused_requests(service: Service, method: str, path: str, headers: dict[str, str], status: int) -> None:
    response = asyncio.run(service.send(method, path, headers=headers))
    assert (response.status_code, list(response.json())) == (status, ["error"])


@pytest.mark.parametrize("accept", ["*/*", "application/*", "text/html, application/json;q=0.9", ""])
def test_accept_header(service: Service, accept: str) -> None:
    assert reasons(service.post(jpeg(100), accept=accept)) == [None]


def test_too_many_links(service: Service) -> None:
    response = service.links(*["s3://bins/a.jpg"] * (MAX_LINKS + 1))
    assert (response.status_code, "send at most 1,000" in response.text) == (413, True)


def test_ping_reports_whether_photos_can_be_counted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(settings)
    service.app.counter = None
    assert service.get("/ping").status_code == 503
    assert service.post(jpeg(100)).status_code == 503
    service.app.counter = service.counter
    assert (service.get("/ping").status_code, service.get("/ping").json()) == (200, {"model": "brightness-1"})
    service.counter.close()


def test_broken_model_is_500(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(settings)

    def infer(photos: np.ndarray) -> ModelOutput:
        raise RuntimeError("the GPU is lost")

    monkeypatch.setattr(service.engine, "infer", infer)
    for response in (service.get("/ping"), service.post(jpeg(100))):
        assert response.status_code == {"GET": 503, "POST": 500}[response.request.method]
        assert "the GPU is lost" in response.json()["error"]
    monkeypatch.undo()
    assert reasons(service.post(jpeg(100))) == [None]
    assert service.get("/ping").status_code == 200
    assert service.samples()["binwatch_worker_photos_total/failed/inference_failed"] == 0
    service.counter.close()


def test_concurrent_requests_share_batches(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first batch is counted, further requests collect in batches of limited size."""
    service = Service(settings.model_copy(update={"batch_size": 8, "serve_batch_wait_ms": 0}))
    batches: list[int] = []
    infer, first_may_end = service.engine.infer, threading.Event()

    def held(photos: np.ndarray) -> ModelOutput:
        batches.append(len(photos))
        assert first_may_end.wait(WITHIN_S)
        return infer(photos)

    monkeypatch.setattr(service.engine, "infer", held)

    async def run() -> list[httpx.Response]:
        body = jpeg(brightness_of(4))
        sent = [asyncio.create_task(service.send("POST", "/invocations", content=body)) for _ in range(21)]
        while len(service.counter._batcher._waiting) + sum(batches) < 21:
            await asyncio.sleep(0.01)  # polling interval
        first_may_end.set()
        return await asyncio.gather(*sent)

    responses = asyncio.run(asyncio.wait_for(run(), WITHIN_S))
    assert {Answer.model_validate_json(response.content).predicted for response in responses} == {4}
    assert sum(batches) == 21
    assert max(batches[1:]) == 8
    assert len(batches) <= 5  # two batches run at a time; the first two may have one photo each
    service.counter.close()


def test_requests_beyond_queue_limit_are_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(settings.model_copy(update={"serve_queue": 2}))
    infer, may_end = service.engine.infer, threading.Event()

    def held(photos: np.ndarray) -> ModelOutput:
        assert may_end.wait(WITHIN_S)
        return infer(photos)

    monkeypatch.setattr(service.engine, "infer", held)

    async def run() -> list[httpx.Response]:
        sent = [asyncio.create_task(service.send("POST", "/invocations", content=jpeg(9))) for _ in range(2)]
        while service.app._requests_in_flight < 2:
            await asyncio.sleep(0.01)  # polling interval
        refused = await service.send("POST", "/invocations", content=jpeg(9))
        may_end.set()
        return [refused, *await asyncio.gather(*sent), await service.send("POST", "/invocations", content=jpeg(9))]

    responses = asyncio.run(asyncio.wait_for(run(), WITHIN_S))
    assert [response.status_code for response in responses] == [503, 200, 200, 200]
    assert responses[0].headers["retry-after"] == "1"
    assert service.samples()["binwatch_worker_refused_requests_total"] == 1
    service.counter.close()


def test_announced_requests_of_transform_job_are_accepted(settings: Settings) -> None:
    small = settings.model_copy(update={"serve_queue": 1})
    service = Service(small, TransformEnvironment(batch=True, max_concurrent_transforms=16))

    async def run() -> list[httpx.Response]:
        sent = (service.send("POST", "/invocations", content=jpeg(9)) for _ in range(16))
        return await asyncio.gather(*sent)

    assert {response.status_code for response in asyncio.run(run())} == {200}
    service.counter.close()


@pytest.mark.parametrize(
    ("batch_size", "photo_mb", "concurrent", "payload"),
    [(16, 20, 16, 6), (16, 4, 16, 4), (4, 20, 4, 20), (512, 20, 16, 6), (512, 1, 100, 1), (1, 200, 1, 100)],
)
def test_execution_parameters_stay_within_sagemakers_limit(
    settings: Settings, batch_size: int, photo_mb: int, concurrent: int, payload: int
) -> None:
    service = Service(settings.model_copy(update={"batch_size": batch_size, "max_photo_bytes": photo_mb * 2**20}))
    assert service.get("/execution-parameters").json() == {
        "MaxConcurrentTransforms": concurrent,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": payload,
    }
    service.counter.close()


def test_transform_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BATCH", "true")
    monkeypatch.setenv("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", "16")
    monkeypatch.setenv("SAGEMAKER_REGION", "eu-west-1")
    assert TransformEnvironment() == TransformEnvironment(batch=True, max_concurrent_transforms=16)


def test_model_is_the_one_unpacked_by_sagemaker(settings: Settings, brightness_bundle: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "ml" / "model"
    sagemaker = settings.sagemaker.model_copy(update={"folder": tmp_path / "ml"})
    settings = settings.model_copy(update={"sagemaker": sagemaker})
    assert find_bundle(settings).folder == brightness_bundle  # outside of SageMaker
    unpacked.mkdir(parents=True)
    with pytest.raises(BundleError, match=r"no card\.json here"):
        find_bundle(settings)
    (unpacked / "inner").symlink_to(brightness_bundle)
    assert find_bundle(settings).folder == unpacked / "inner"
