"""Runs one ONNX file in ONNX Runtime, on a CPU's cores or on a GPU: photos → the model's output."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
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
from worker.batch_padding import buckets, in_buckets

logger = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"

Pixels = npt.NDArray[np.uint8]


class NoCudaError(Exception):
    """ONNX Runtime cannot use CUDA, although it was built with it. The message has the reason and what to check."""


class VariantError(BundleError):
    """One ONNX file of a bundle cannot be used here; another may work."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """The model's output for n photos, in the same order.

    `distribution` is float32 (n, quantities), each row sums to 1; `embeddings` is float32 (n, embedding_size).
    """

    distribution: npt.NDArray[np.float32]
    embeddings: npt.NDArray[np.float32]
    rule: CountRule = CountRule.MODE

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Classes, int64 (n,)."""
        return predict_counts(self.rule, self.probabilities)

    @property
    def probabilities(self) -> npt.NDArray[np.floating]:
        """Probabilities of the classes, float32 (n, 7)."""
        return class_probabilities(self.distribution)


@dataclass(frozen=True, slots=True)
class Cuda:
    """How a GPU is used. The defaults are for workers; benchmarks.engine_speed tries others."""

    options: Mapping[str, str] = field(default_factory=lambda: {"cudnn_conv_algo_search": "HEURISTIC"})
    """Options of ONNX Runtime's CUDA provider. With HEURISTIC, cuDNN picks the convolution algorithm that is probably
    best; the default compares more algorithms, which takes many times as long at each start."""
    calls: int = 1
    """Concurrent batches on the GPU. The next batch is assembled meanwhile."""


class LoadedModel(Protocol):
    """A loaded model. Thread-safe."""

    provider: str
    """ONNX Runtime's name of the execution provider."""
    calls: int
    """Number of concurrent calls that keep the machine busy."""
    sizes: tuple[int, ...]
    """Batch sizes to warm: the first call of each size allocates memory and plans convolutions."""
    first: Any
    """An ONNX Runtime session, for its description of inputs and outputs."""

    def infer(self, photos: Pixels) -> Inferred:
        """Count `photos`, uint8 (n, size, size, 3) with n ≥ 1."""


class OnCpu:
    """Divides the photos of a call among threads, each of which runs the model separately.

    ONNX Runtime's own threads share each operator and wait for each other after it, which costs time
    (benchmarks/engine_threads.py). With two concurrent calls, cores that have finished one start with the next.
    """

    provider = CPU_PROVIDER
    calls = 2

    def __init__(self, path: Path, threads: int, batch_size: int) -> None:
        """Raises VariantError if the file cannot be loaded."""
        self.sizes: tuple[int, ...] = (1, batch_size)
        try:
            self.first = open_session(path)  # one thread per call: several calls run concurrently
        except Exception as error:  # ONNX Runtime raises its own, unexported classes
            raise VariantError(f"{path}: ONNX Runtime cannot load it ({error}); export the model again") from error
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="infer")

    def infer(self, photos: Pixels) -> Inferred:
        parts = np.array_split(photos, min(self._threads, len(photos)))
        return _joined(self._pool.map(lambda part: _run(self.first, part), parts))


class OnCuda:
    """Uses a few batch sizes only, each in a separate session.

    ONNX Runtime's convolutions cache cuDNN's plan for the last shape only (Conv::UpdateState in 1.20 and later). In a
    shared session, each change of batch size would cause new planning.
    """

    provider = CUDA

    def __init__(self, path: Path, batch_size: int, cuda: Cuda) -> None:
        """Raises NoCudaError if ONNX Runtime cannot load the file with CUDA, or falls back to another provider."""
        self.calls = cuda.calls
        self.sizes = buckets(batch_size)
        self._sessions = {size: _open_with_cuda(path, cuda.options) for size in self.sizes}
        self.first = self._sessions[self.sizes[0]]
        self._turns = threading.BoundedSemaphore(cuda.calls)

    def infer(self, photos: Pixels) -> Inferred:
        batches = list(in_buckets(photos, self.sizes))  # padded before waiting for the GPU
        with self._turns:
            return _joined(_run(self._sessions[len(batch)], batch, kept) for batch, kept in batches)


def _open_with_cuda(path: Path, options: Mapping[str, str]) -> Any:
    look = "check the driver (nvidia-smi) and the CUDA and cuDNN libraries"
    _preload()
    try:
        session = open_session(path, [(CUDA, dict(options)), CPU_PROVIDER])
    except Exception as error:
        raise NoCudaError(f"ONNX Runtime cannot load {path} with it ({error}): {look}") from error
    # Without CUDA's libraries, it silently loads on the CPU; only its list of providers shows that.
    provider = session.get_providers()[0]
    if provider != CUDA:
        raise NoCudaError(f"ONNX Runtime fell back to {provider}: {look}")
    return session


@cache
def _preload() -> None:
    """Load CUDA's and cuDNN's libraries from pip's packages.

    ONNX Runtime prints the names of missing libraries on standard output, which belongs to the results of
    `count --json`. So its output is logged instead.
    """
    said = io.StringIO()
    with redirect_stdout(said):
        ort.preload_dlls()
    for line in said.getvalue().splitlines():
        logger.warning("CUDA: %s", line)


def _run(session: Any, photos: Pixels, kept: int | None = None) -> Inferred:
    """The answers to the first `kept` photos, or to all."""
    distribution, embeddings = session.run([PROBABILITIES_OUTPUT, EMBEDDING_OUTPUT], {INPUT_NAME: photos})
    if len(distribution) != len(photos):
        raise BinwatchError(
            f"the model returned {count_noun(len(distribution), 'answer')} for {count_noun(len(photos), 'photo')};"
            " export it again"
        )
    return Inferred(distribution[:kept], embeddings[:kept])


def _joined(answers: Iterable[Inferred]) -> Inferred:
    parts = list(answers)
    return Inferred(
        np.concatenate([part.distribution for part in parts]), np.concatenate([part.embeddings for part in parts])
    )
