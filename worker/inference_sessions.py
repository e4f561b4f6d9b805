"""Run one ONNX file in ONNX Runtime, on the cores of a CPU or on a GPU: photos → the model's output."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from binwatch.bundle import EMBEDDING_OUTPUT, INPUT_NAME, PROBABILITIES_OUTPUT
from binwatch.counts import CountRule, class_probabilities, predict_counts
from binwatch.errors import BinwatchError, BundleError
from binwatch.onnx_session import CPU_PROVIDER, open_session
from binwatch.text import count_noun
from worker.batch_padding import bucket_sizes, split_into_buckets

logger = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"

Pixels = npt.NDArray[np.uint8]


class CudaUnavailableError(Exception):
    """ONNX Runtime was built with CUDA but cannot use it. The message has the reason and what to check."""


class VariantError(BundleError):
    """One ONNX file of a bundle cannot be used on this machine; another variant may work."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """The model's output for n photos, in the same order.

    `distribution` is float32 (n, quantities), each row sums to 1; `embeddings` is float32 (n, embedding_size).
    """

    distribution: npt.NDArray[np.float32]
    embeddings: npt.NDArray[np.float32]
    rule: CountRule = CountRule.MODE

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Predicted classes, int64 (n,)."""
        return predict_counts(self.rule, self.probabilities)

    @property
    def probabilities(self) -> npt.NDArray[np.floating]:
        """Probabilities of the classes, float32 (n, 7)."""
        return class_probabilities(self.distribution)


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """How to use a GPU. The defaults are those of workers; benchmarks.engine_speed measures others."""

    provider_options: Mapping[str, str] = field(default_factory=lambda: {"cudnn_conv_algo_search": "HEURISTIC"})
    """Options of ONNX Runtime's CUDA provider. With HEURISTIC, cuDNN picks the convolution algorithm that is probably
    fastest; the default compares more algorithms, which makes each start many times slower."""
    concurrent_calls: int = 1
    """Number of concurrent batches on the GPU. The next batch is assembled meanwhile."""


class LoadedModel(Protocol):
    """A loaded model. Thread-safe."""

    provider: str
    """ONNX Runtime's name of the execution provider."""
    concurrent_calls: int
    """Number of concurrent calls that keep the machine busy."""
    batch_sizes: tuple[int, ...]
    """Batch sizes to warm up: the first call of each size allocates memory and plans convolutions."""
    first_session: Any
    """An ONNX Runtime session that describes the inputs and outputs."""

    def infer(self, photos: Pixels) -> ModelOutput:
        """Count `photos`, uint8 (n, size, size, 3) with n ≥ 1."""


class CpuModel:
    """A model on the CPU. Divides the photos of a call among threads, each of which runs the model separately.

    ONNX Runtime's own threads share each operator and wait for each other after it, which costs time
    (benchmarks/engine_threads.py). With two concurrent calls, cores that have finished one start on the next.
    """

    provider = CPU_PROVIDER
    concurrent_calls = 2

    def __init__(self, path: Path, threads: int, batch_size: int) -> None:
        """Raises VariantError if the file cannot be loaded."""
        self.batch_sizes: tuple[int, ...] = (1, batch_size)
        try:
            self.first_session = open_session(path)  # one thread per call: several calls run concurrently
        except Exception as error:  # ONNX Runtime raises its own, unexported classes
            raise VariantError(f"{path}: ONNX Runtime cannot load it ({error}); export the model again") from error
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="infer")

    def infer(self, photos: Pixels) -> ModelOutput:
        chunks = np.array_split(photos, min(self._threads, len(photos)))
        return _concatenate(self._pool.map(partial(_run, self.first_session), chunks))


class CudaModel:
    """A model on a GPU. Uses only a few batch sizes, each in a separate session.

    ONNX Runtime's convolutions cache cuDNN's plan for the last shape only (Conv::UpdateState in 1.20 and later). In a
    shared session, each change of batch size would require a new plan.
    """

    provider = CUDA

    def __init__(self, path: Path, batch_size: int, cuda: CudaOptions) -> None:
        """Raises CudaUnavailableError if ONNX Runtime cannot load the file with CUDA, or uses another provider."""
        self.concurrent_calls = cuda.concurrent_calls
        self.batch_sizes = bucket_sizes(batch_size)
        self._sessions = {size: _open_with_cuda(path, cuda.provider_options) for size in self.batch_sizes}
        self.first_session = self._sessions[self.batch_sizes[0]]
        self._gpu_slots = threading.BoundedSemaphore(cuda.concurrent_calls)

    def infer(self, photos: Pixels) -> ModelOutput:
        batches = list(split_into_buckets(photos, self.batch_sizes))  # padded before waiting for the GPU
        with self._gpu_slots:
            return _concatenate(_run(self._sessions[len(batch)], batch, n_photos) for batch, n_photos in batches)


def _open_with_cuda(path: Path, options: Mapping[str, str]) -> Any:
    advice = "check the driver (nvidia-smi) and the CUDA and cuDNN libraries"
    _preload_cuda_libraries()
    try:
        session = open_session(path, [(CUDA, dict(options)), CPU_PROVIDER])
    except Exception as error:
        raise CudaUnavailableError(f"ONNX Runtime cannot load {path} with it ({error}): {advice}") from error
    # Without the CUDA libraries, ONNX Runtime silently falls back to the CPU; only its list of providers shows that.
    provider = session.get_providers()[0]
    if provider != CUDA:
        raise CudaUnavailableError(f"ONNX Runtime fell back to {provider}: {advice}")
    return session


@cache
def _preload_cuda_libraries() -> None:
    """Load the CUDA and cuDNN libraries that pip has installed.

    ONNX Runtime prints the names of missing libraries to standard output, which is reserved for the results of
    `count --json`. So its output is logged instead.
    """
    output = io.StringIO()
    with redirect_stdout(output):
        ort.preload_dlls()
    for line in output.getvalue().splitlines():
        logger.warning("CUDA: %s", line)


def _run(session: Any, photos: Pixels, n_photos: int | None = None) -> ModelOutput:
    """Run the model on `photos`, and return its output for the first `n_photos`; by default, for all of them."""
    distribution, embeddings = session.run([PROBABILITIES_OUTPUT, EMBEDDING_OUTPUT], {INPUT_NAME: photos})
    if len(distribution) != len(photos):
        raise BinwatchError(
            f"the model returned {count_noun(len(distribution), 'answer')} for {count_noun(len(photos), 'photo')};"
            " export it again"
        )
    return ModelOutput(distribution[:n_photos], embeddings[:n_photos])


def _concatenate(outputs: Iterable[ModelOutput]) -> ModelOutput:
    pairs = [(output.distribution, output.embeddings) for output in outputs]
    distributions, embeddings = zip(*pairs, strict=True)
    return ModelOutput(np.concatenate(distributions), np.concatenate(embeddings))
