"""The engine on a real GPU. Skipped on machines without one."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from binwatch.bundle import Bundle, Card, Precision, make_variant, write_card
from binwatch.settings import PrecisionChoice, Provider
from testing.brightness import probabilities_of, write_brightness_bundle
from worker.engine import Engine
from worker.inference_sessions import CPU_PROVIDER, CUDA


def _has_gpu() -> bool:
    """Return whether a GPU driver responds. Other missing parts must fail the tests."""
    try:
        return CUDA in ort.get_available_providers() and ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not _has_gpu(), reason="needs a GPU, and ONNX Runtime with CUDA")


def _assert_right(engine: Engine, levels: list[int]) -> None:
    photos = np.stack([np.full((224, 224, 3), level, dtype=np.uint8) for level in levels])
    np.testing.assert_allclose(
        engine.infer(photos).probabilities, [probabilities_of(level) for level in levels], atol=1e-4
    )


def test_every_size_from_many_threads(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path)
    engine = Engine(Bundle(tmp_path), provider=Provider.CUDA, batch_size=24)
    engine.warm_up()
    assert (engine.provider, engine.batch_sizes) == (CUDA, (1, 4, 16, 24))
    batches = [[(37 * n + size) % 256 for n in range(size)] for size in range(1, 60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda levels: _assert_right(engine, levels), batches))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Export a ResNet18 with random weights in fp32 and fp16."""
    from trainer.config import ModelConfig
    from trainer.export.graph import write_onnx
    from trainer.export.quantize import write_fp16
    from trainer.models import build

    folder = tmp_path_factory.mktemp("network")
    fp32, fp16 = folder / "model-fp32.onnx", folder / "model-fp16.onnx"
    model = build(ModelConfig(architecture="resnet18", weights="none")).eval()
    write_onnx(model, 1.0, fp32)
    write_fp16(fp32, fp16)
    variants = {Precision.FP32: make_variant(fp32), Precision.FP16: make_variant(fp16)}
    card = Card(
        version="random", architecture="resnet18", created=datetime.now(UTC), embedding_size=model.head.embedding_size,
        temperature=1.0, variants=variants,
    )  # fmt: skip
    write_card(folder, card)
    return Bundle(folder)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32])
def test_gpu_agrees_with_cpu(network: Bundle, precision: Precision) -> None:
    """Within the tolerances of half precision or TF32 (trainer.export.parity)."""
    photos = np.random.default_rng(0).integers(0, 256, (20, 224, 224, 3), dtype=np.uint8)
    choice = PrecisionChoice(precision.value)
    on_gpu = Engine(network, provider=Provider.CUDA, precision=choice, batch_size=16).infer(photos)
    on_cpu = Engine(network, provider=Provider.CPU, precision=PrecisionChoice.FP32).infer(photos)
    np.testing.assert_allclose(on_gpu.probabilities, on_cpu.probabilities, atol=5e-2)
    assert np.abs(on_gpu.probabilities - on_cpu.probabilities).mean() < 2e-3


def test_gpu_uses_its_preferred_variant(network: Bundle) -> None:
    engine = Engine(network)
    assert (engine.provider, engine.precision) == (CUDA, Precision.FP16)
    assert Engine(network, provider=Provider.CPU).provider == CPU_PROVIDER
