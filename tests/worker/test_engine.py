"""The engine with a model of known predictions and with faulty bundles."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from binwatch.bundle import (
    CARD_FILE,
    EMBEDDING_OUTPUT,
    INPUT_NAME,
    PROBABILITIES_OUTPUT,
    Bundle,
    Precision,
    Variant,
    make_variant,
    write_card,
)
from binwatch.counts import CLASSES
from binwatch.errors import BundleError
from binwatch.settings import PrecisionChoice, Provider
from testing.brightness import probabilities_of, write_brightness_bundle, write_brightness_model
from worker import engine as engine_module
from worker import inference_sessions
from worker.batch_padding import bucket_sizes
from worker.engine import Engine, ProviderError
from worker.inference_sessions import CPU_PROVIDER, CUDA, CudaOptions


def _photos(levels: list[int]) -> np.ndarray:
    return np.stack([np.full((224, 224, 3), level, dtype=np.uint8) for level in levels])


def _assert_right(engine: Engine, levels: list[int]) -> None:
    inferred = engine.infer(_photos(levels))
    assert inferred.probabilities.shape == (len(levels), len(CLASSES))
    assert inferred.probabilities.dtype == np.float32
    np.testing.assert_allclose(inferred.embeddings[:, 0], levels, atol=1e-3)
    np.testing.assert_allclose(inferred.probabilities, [probabilities_of(level) for level in levels], atol=1e-5)


def _with_model(folder: Path, **options: object) -> Bundle:
    """Write a bundle with the correct digest of an unsuitable ONNX file."""
    write_brightness_bundle(folder)
    write_brightness_model(folder / "model-int8.onnx", **options)
    return _signed(folder)


def _signed(folder: Path, **changes: object) -> Bundle:
    variants = {Precision.INT8: make_variant(folder / "model-int8.onnx")}
    write_card(folder, Bundle(folder).card.model_copy(update={"variants": variants, **changes}))
    return Bundle(folder)


@pytest.fixture
def engine(brightness_bundle: Path) -> Engine:
    return Engine(Bundle(brightness_bundle), threads=1)


@pytest.mark.parametrize("size", [1, 7, 16])
def test_answers(engine: Engine, size: int) -> None:
    _assert_right(engine, [(37 * n + 5) % 256 for n in range(size)])


def test_black_is_0_and_white_is_more_than_5(engine: Engine) -> None:
    assert engine.infer(_photos([0, 255])).probabilities.argmax(axis=1).tolist() == [0, 6]
    assert (engine.provider, engine.precision, engine.card.version) == (CPU_PROVIDER, Precision.INT8, "brightness-1")


def test_concurrent_calls_from_eight_threads(engine: Engine) -> None:
    batches = [[(n * 11 + k * 29) % 256 for k in range(n % 5 + 1)] for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(_assert_right, engine, batch) for batch in batches]:
            future.result()


def test_onnx_file_differs_from_the_card(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path)
    with (tmp_path / "model-int8.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"model-int8\.onnx: its SHA-256 is [0-9a-f]{64}, the card says"):
        Engine(Bundle(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_name": "images"}, r"'photos' as tensor\(uint8\) .*nothing of that name"),
        ({"side": 192}, r"'photos' as tensor\(uint8\) \(batch, 224, 224, 3\).*192, 192, 3"),
        ({"input_type": TensorProto.FLOAT}, r"'photos' as tensor\(uint8\).*tensor\(float\)"),
    ],
)
def test_input_differs_from_the_card(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Engine(_with_model(tmp_path, **options))


def test_embedding_differs_from_the_card(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path)
    with pytest.raises(BundleError, match=r"'embedding' as tensor\(float\) \(batch, 64\).*\[1\]"):
        Engine(_signed(tmp_path, embedding_size=64))


@pytest.mark.parametrize("output", [PROBABILITIES_OUTPUT, EMBEDDING_OUTPUT])
def test_missing_output(tmp_path: Path, output: str) -> None:
    write_brightness_bundle(tmp_path)
    path = tmp_path / "model-int8.onnx"
    model = onnx.load(path)
    left = [node for node in model.graph.output if node.name != output]
    del model.graph.output[:]
    model.graph.output.extend(left)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=f"{output!r}.*nothing of that name"):
        Engine(_signed(tmp_path))


def test_fixed_batch(tmp_path: Path) -> None:
    """A model exported with a fixed batch size must be refused before the first photo."""
    write_brightness_bundle(tmp_path)
    path = tmp_path / "model-int8.onnx"
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"'photos'.*batch size of 2"):
        Engine(_signed(tmp_path))


@pytest.mark.parametrize("data", [b"not a model", b"\x89PNG\r\n\x1a\n", bytes(100)])
def test_not_an_onnx_file(tmp_path: Path, data: bytes) -> None:
    write_brightness_bundle(tmp_path)
    (tmp_path / "model-int8.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"model-int8\.onnx"):
        Engine(_signed(tmp_path))


def test_no_such_variant(brightness_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"no fp16 variant in card\.json \(found: int8\)"):
        Engine(Bundle(brightness_bundle), precision=PrecisionChoice.FP16)


def test_variant_in_the_card_but_not_in_the_folder(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path)
    (tmp_path / "model-int8.onnx").unlink()
    with pytest.raises(BundleError, match=r"model-int8\.onnx: named in card\.json but missing"):
        Engine(Bundle(tmp_path))


def test_cuda_required_but_not_built_in(brightness_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module.ort, "get_available_providers", lambda: [CPU_PROVIDER])
    with pytest.raises(ProviderError, match="BINWATCH_PROVIDER=cuda but the installed ONNX Runtime is built without"):
        Engine(Bundle(brightness_bundle), provider=Provider.CUDA)


# Without CUDA libraries, ONNX Runtime for GPUs lists CUDA, loads, and computes on the CPU; this simulates it.
@pytest.fixture
def _cuda_that_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module.ort, "get_available_providers", lambda: [CUDA, CPU_PROVIDER])


@pytest.mark.usefixtures("_cuda_that_falls_back")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_required_but_fell_back(brightness_bundle: Path) -> None:
    if CUDA in engine_module.ort.capi._pybind_state.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    message = (
        r"BINWATCH_PROVIDER=cuda but ONNX Runtime fell back to CPUExecutionProvider: check the driver \(nvidia-smi"
    )
    with pytest.raises(ProviderError, match=message):
        Engine(Bundle(brightness_bundle), provider=Provider.CUDA)


@pytest.mark.usefixtures("_cuda_that_falls_back")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_auto_falls_back_to_the_cpu_variant(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if CUDA in engine_module.ort.capi._pybind_state.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    _with_variants(tmp_path, [Precision.FP16, Precision.INT8])
    engine = Engine(Bundle(tmp_path), threads=1)
    assert (engine.provider, engine.precision) == (CPU_PROVIDER, Precision.INT8)
    assert "computing on the CPU, although ONNX Runtime was built with CUDA: ONNX Runtime fell back" in caplog.text
    _assert_right(engine, [10, 200])


@pytest.mark.parametrize(
    ("variants", "chosen"),
    [
        ([Precision.FP32, Precision.INT8], Precision.INT8),
        ([Precision.FP16, Precision.FP32], Precision.FP32),
        ([Precision.FP16], Precision.FP16),
    ],
)
def test_auto_precision_on_a_cpu(tmp_path: Path, variants: list[Precision], chosen: Precision) -> None:
    _with_variants(tmp_path, variants)
    engine = Engine(Bundle(tmp_path), provider=Provider.CPU, threads=1)
    assert engine.precision is chosen
    _assert_right(engine, [3])


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_precision_by_name(tmp_path: Path, precision: Precision) -> None:
    _with_variants(tmp_path, [Precision.FP32, Precision.INT8])
    engine = Engine(Bundle(tmp_path), precision=PrecisionChoice(precision.value), threads=1)
    assert engine.precision is precision


def _with_variants(folder: Path, precisions: list[Precision]) -> None:
    write_brightness_bundle(folder)
    variants: dict[Precision, Variant] = {}
    for precision in precisions:
        path = folder / f"model-{precision}.onnx"
        shutil.copy(folder / "model-int8.onnx", path) if not path.exists() else None
        variants[precision] = make_variant(path)
    write_card(folder, Bundle(folder).card.model_copy(update={"variants": variants}))
    assert (folder / CARD_FILE).exists()


class CudaStandIn:
    """A session on the CPU that claims to use CUDA and records the shapes of its calls."""

    opened: ClassVar[list[CudaStandIn]] = []

    def __init__(self, path: str, options: object, providers: list[object], enable_fallback: int) -> None:
        assert enable_fallback == 0  # otherwise ONNX Runtime would silently switch to the CPU
        self.opened.append(self)
        self.providers = providers
        self.shapes: list[tuple[int, ...]] = []
        self._session = SESSION(path, options, providers=[CPU_PROVIDER])
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs

    def get_providers(self) -> list[str]:
        return [CUDA, CPU_PROVIDER]

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.shapes += [array.shape for array in inputs.values()]
        return self._session.run(outputs, inputs)


SESSION = engine_module.ort.InferenceSession


@pytest.fixture
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaStandIn, "opened", [])
    monkeypatch.setattr(engine_module.ort, "get_available_providers", lambda: [CUDA, CPU_PROVIDER])
    monkeypatch.setattr(engine_module.ort, "InferenceSession", CudaStandIn)


@pytest.fixture
def cuda(brightness_bundle: Path, _stand_in: None) -> Engine:
    """Return an engine on simulated CUDA for batches of up to 24 photos."""
    return Engine(Bundle(brightness_bundle), threads=1, batch_size=24)


def _batches() -> list[int]:
    """Return the number of photos of each run, session by session."""
    shapes = [shape for session in CudaStandIn.opened for shape in session.shapes]
    assert {shape[1:] for shape in shapes} <= {(224, 224, 3)}
    return [shape[0] for shape in shapes]


def test_each_cuda_session_runs_one_batch_size(cuda: Engine) -> None:
    """CUDA plans convolutions for the first batch, and again whenever the batch size changes."""
    cuda.warm_up()
    assert _batches() == [1, 4, 16, 24]
    for size in range(1, 60):
        _assert_right(cuda, [(37 * n + size) % 256 for n in range(size)])
    assert [{shape[0] for shape in session.shapes} for session in CudaStandIn.opened] == [{1}, {4}, {16}, {24}]


@pytest.mark.usefixtures("_stand_in")
def test_cuda_options(brightness_bundle: Path) -> None:
    bundle = Bundle(brightness_bundle)
    assert Engine(bundle).concurrent_calls == 1
    other = Engine(bundle, batch_size=4, cuda=CudaOptions({"prefer_nhwc": "1"}, concurrent_calls=2))
    assert other.concurrent_calls == 2
    assert CudaStandIn.opened[0].providers == [(CUDA, {"cudnn_conv_algo_search": "HEURISTIC"}), CPU_PROVIDER]
    assert CudaStandIn.opened[-1].providers == [(CUDA, {"prefer_nhwc": "1"}), CPU_PROVIDER]


class NoMemory:
    """A session that runs out of GPU memory and works on a CPU."""

    def __new__(cls, path: str, options: object, providers: list[object], enable_fallback: int) -> object:
        if providers != [CPU_PROVIDER]:
            raise RuntimeError("CUDA failure 2: out of memory")
        return SESSION(path, options, providers=providers, enable_fallback=enable_fallback)


@pytest.mark.usefixtures("_stand_in")
def test_gpu_cannot_load_the_model(
    brightness_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_module.ort, "InferenceSession", NoMemory)
    message = (
        r"BINWATCH_PROVIDER=cuda but ONNX Runtime cannot load .*\(CUDA failure 2: out of memory\): check the driver"
    )
    with pytest.raises(ProviderError, match=message):
        Engine(Bundle(brightness_bundle), provider=Provider.CUDA)
    engine = Engine(Bundle(brightness_bundle), threads=1)
    assert engine.provider == CPU_PROVIDER
    assert "computing on the CPU" in caplog.text
    _assert_right(engine, [10, 200])


@pytest.mark.usefixtures("_stand_in")
def test_missing_cuda_libraries_are_logged(
    brightness_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """ONNX Runtime itself prints them to standard output."""
    monkeypatch.setattr(engine_module.ort, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"))
    inference_sessions._preload_cuda_libraries.cache_clear()
    Engine(Bundle(brightness_bundle))
    inference_sessions._preload_cuda_libraries.cache_clear()
    assert "Failed to load libcudnn.so.9" in caplog.text
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("photos", "batches"), [(1, [1]), (2, [4]), (4, [4]), (5, [16]), (17, [24]), (24, [24]), (25, [24, 1])]
)
def test_partial_batch_is_padded_on_cuda(
    cuda: Engine, brightness_bundle: Path, photos: int, batches: list[int]
) -> None:
    """Padding does not change the outputs, bit by bit."""
    pixels = np.random.default_rng(photos).integers(0, 256, (photos, 224, 224, 3), dtype=np.uint8)
    padded = cuda.infer(pixels)
    assert sorted(_batches()) == sorted(batches)
    plain = SESSION(brightness_bundle / "model-int8.onnx", providers=[CPU_PROVIDER])
    probabilities, embeddings = plain.run([PROBABILITIES_OUTPUT, EMBEDDING_OUTPUT], {INPUT_NAME: pixels})
    np.testing.assert_array_equal(padded.probabilities, probabilities)
    np.testing.assert_array_equal(padded.embeddings, embeddings)


@pytest.mark.usefixtures("_stand_in")
def test_batches_are_not_padded_on_a_cpu(brightness_bundle: Path) -> None:
    """On a CPU, a row of padding would cost as much as a photo."""
    engine = Engine(Bundle(brightness_bundle), provider=Provider.CPU, threads=1, batch_size=24)
    engine.warm_up()
    for size in (2, 5, 25):
        _assert_right(engine, [40] * size)
    assert _batches() == [1, 24, 2, 5, 25]


class Gathering(CudaStandIn):
    """A CPU session whose runs wait until three are active; records the maximum number of concurrent runs."""

    def __init__(self, path: str, options: object, providers: list[object], enable_fallback: int) -> None:
        super().__init__(path, options, providers, enable_fallback)
        self.gate, self.inside, self.most, self.lock = threading.Barrier(3, timeout=30), 0, 0, threading.Lock()

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.gate.wait()
        try:
            return super().run(outputs, inputs)
        finally:
            with self.lock:
                self.inside -= 1


@pytest.mark.usefixtures("_stand_in")
def test_cpu_runs_the_model_on_each_thread(brightness_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread gets a part of the photos, and outputs are in the photos' order."""
    monkeypatch.setattr(engine_module.ort, "InferenceSession", Gathering)
    engine = Engine(Bundle(brightness_bundle), provider=Provider.CPU, threads=3)
    with ThreadPoolExecutor(4) as pool:
        for future in [
            pool.submit(_assert_right, engine, [(31 * n + call) % 256 for n in range(7)]) for call in (0, 9)
        ]:
            future.result()
    assert sorted(_batches()) == [2, 2, 2, 2, 3, 3]
    assert [session.most for session in CudaStandIn.opened] == [3]


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, (1,)), (2, (1, 2)), (4, (1, 4)), (16, (1, 4, 16)), (100, (1, 4, 16, 64, 100))]
)
def test_bucket_sizes(largest: int, sizes: tuple[int, ...]) -> None:
    assert bucket_sizes(largest) == sizes
