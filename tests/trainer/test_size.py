"""Networks with another input size: trained, exported, evaluated, and used by worker and container."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import Engine as Database
from sqlalchemy import select

from binwatch.bundle import Bundle
from binwatch.counts import class_probabilities
from binwatch.events import ObjectCreated
from binwatch.image import load_photo
from binwatch.records.tables import Count
from binwatch.settings import Settings
from testing.services.s3 import S3
from tests.trainer.drawn import QUICK, Data, run_cli
from tests.trainer.test_run import config_of
from trainer.data.dataset import load_dataset
from trainer.data.source import PREPARED_FILE, prepared_jpeg_quality
from trainer.data.split import Split
from trainer.evaluation.onnx_model import OnnxModel
from trainer.train import checkpoint
from trainer.train.features import FeatureCache
from trainer.train.fit import load_teachers
from trainer.train.run_files import BEST_CHECKPOINT
from worker.counting import Counting
from worker.engine import Engine
from worker.metrics import WorkerMetrics
from worker.sagemaker.serving.counter import PhotoCounter

PHOTO = Path(__file__).parents[2] / "samples" / "bin-images" / "00184.jpg"
SIZE = 96


@pytest.fixture(scope="module")
def bundle(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Train with frozen lower layers, so that features also use this input size."""
    folder = tmp_path_factory.mktemp("size")
    sized = ["--set", f"data.size={SIZE}", "--freeze", "layer1", "--epochs", 1]
    run_cli("fit", *data.flags, "--out", folder / "run", *QUICK, *sized)
    (features,) = (np.load(file, mmap_mode="r") for file in (folder / "run" / "features").glob("*-1.npy"))
    assert features.shape[1:] == (SIZE // 4, SIZE // 4, 32)
    run_cli(
        "export", folder / "run" / BEST_CHECKPOINT, "--out", folder / "bundle", "--variants", "int8,fp32,fp16",
        "--max-loss", 1,
    )  # fmt: skip
    return Bundle(folder / "bundle")


@pytest.fixture(scope="module")
def expected(bundle: Bundle) -> list[float]:
    """Return the probabilities of the exported file for the photo at its input size."""
    assert bundle.card.input_size == SIZE
    pixels = load_photo(PHOTO.read_bytes(), size=SIZE).pixels
    return class_probabilities(OnnxModel(bundle.model_path(Engine(bundle).precision))(pixels[None])[0])[0].tolist()


@pytest.fixture
def settings(bundle: Bundle, s3: S3, sqlite_records: Database) -> Settings:
    return Settings(
        bucket=s3.bucket, s3_endpoint_url=s3.endpoint_url, database_url=str(sqlite_records.url),
        model_dir=bundle.folder, inference_threads=1, fetch_threads=1, worker_concurrency=1,
    )  # fmt: skip


def test_a_worker_counts(expected: list[float], settings: Settings, s3: S3) -> None:
    s3.put("bin-images/00184.jpg", PHOTO.read_bytes())
    counting = Counting(settings)
    try:
        assert counting.count([ObjectCreated(s3.bucket, "bin-images/00184.jpg")]) == []
        with counting.database.connect() as connection:
            assert connection.scalars(select(Count.probabilities)).one() == pytest.approx(expected, abs=1e-5)
    finally:
        counting.close()


def test_the_container_predicts(expected: list[float], settings: Settings, bundle: Bundle) -> None:
    counter = PhotoCounter(Engine(bundle), settings, WorkerMetrics())
    try:
        answer = asyncio.run(counter.count(PHOTO.read_bytes()))
    finally:
        counter.close()
    assert json.loads(answer.model_dump_json())["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_a_model_is_evaluated_at_its_own_size(bundle: Bundle, data: Data, tmp_path: Path) -> None:
    accuracy = []
    for model in (bundle.folder, bundle.folder.parent / "run" / BEST_CHECKPOINT):
        file = tmp_path / f"{model.name}.json"
        run_cli("evaluate", model, *data.flags, "--out", file)
        figures = json.loads(file.read_text(encoding="utf-8"))["metrics"]["test"]
        assert figures["photos"] == 10
        accuracy.append(figures["accuracy"]["value"])
    assert accuracy[0] == accuracy[1] == bundle.card.metrics["test"].accuracy.value


def test_a_teacher_gets_photos_of_its_own_size(bundle: Bundle, data: Data, tmp_path: Path) -> None:
    file = bundle.folder.parent / "run" / BEST_CHECKPOINT
    config = config_of(data, data__jpeg_quality=82, distil__teachers=[file])
    assert config.data.size == 224
    photos = load_dataset(config.data)[Split.TEST]
    result = load_teachers(config)
    assert result is not None
    model, resized = checkpoint.load(file).model(), replace(photos, size=SIZE, jpeg_quality=None)
    pixels = torch.from_numpy(resized.pixels(range(len(resized))))
    with torch.inference_mode():
        expected = torch.stack([torch.softmax(model(each)[0], dim=1) for each in (pixels, pixels.flip(2))]).mean(dim=0)
    cache = FeatureCache(tmp_path, config.augment, config.train, lambda batches, *_: batches)
    torch.testing.assert_close(result.probabilities(photos, cache, mirrored=True), expected)


def test_prepared_jpeg_quality_applies_at_the_prepared_size(tmp_path: Path) -> None:
    assert prepared_jpeg_quality(tmp_path, SIZE) is None
    (tmp_path / PREPARED_FILE).write_text(json.dumps({"size": SIZE, "jpeg_quality": 95}), encoding="utf-8")
    assert prepared_jpeg_quality(tmp_path, SIZE) == 95
    assert prepared_jpeg_quality(tmp_path, 224) == 0  # squashed again, which removes the JPEG artefacts
