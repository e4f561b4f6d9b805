"""ONNX Runtime on one ONNX file, on a CPU's cores or on a GPU: photos in, the model's answers out."""

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

from binwatch.bundle import EMBEDDING, INPUT, PROBABILITIES
from binwatch.counts import CountRule, counts_by, in_classes
from binwatch.errors import BinwatchError, BundleError
from binwatch.onnx_session import CPU, open_session
from binwatch.text import many
from worker.batch_padding import buckets, in_buckets

logger = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"

Pixels = npt.NDArray[np.uint8]


class NoCudaError(Exception):
    """ONNX Runtime does not compute with CUDA, although it was built with it. Says why, and what to look at."""


class VariantError(BundleError):
    """One ONNX file of a bundle cannot be used here; another may do."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """What the model says of n photos, in the same order.

    `distribution` is float32 (n, quantities), each row sums to 1; `embeddings` is float32 (n, embedding_size).
    """

    distribution: npt.NDArray[np.float32]
    embeddings: npt.NDArray[np.float32]
    rule: CountRule = CountRule.MODE

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Classes, int64 (n,)."""
        return counts_by(self.rule, self.probabilities)

    @property
    def probabilities(self) -> npt.NDArray[np.floating]:
        """Of the classes, float32 (n, 7)."""
        return in_classes(self.distribution)


@dataclass(frozen=True, slots=True)
class Cuda:
    """How a GPU is used. Workers use it like this; benchmarks.engine_speed tries other ways."""

    options: Mapping[str, str] = field(default_factory=lambda: {"cudnn_conv_algo_search": "HEURISTIC"})
    """Of ONNX Runtime's CUDA provider. HEURISTIC has cuDNN name its likely best algorithm for a convolution; the
    default has it weigh more of them, which takes many times as long at each start."""
    calls: int = 1
    """Batches on the GPU at a time. The next one is put together meanwhile."""


class LoadedModel(Protocol):
    """A loaded model. Safe to share between threads."""

    provider: str
    """ONNX Runtime's name of where it computes."""
    calls: int
    """How many calls at a time keep the machine at work."""
    sizes: tuple[int, ...]
    """Batch sizes to warm: a call of each does the allocating and planning that later ones need not do."""
    first: Any
    """An ONNX Runtime session, to look at inputs and outputs."""

    def infer(self, photos: Pixels) -> Inferred:
        """Count `photos`, uint8 (n, size, size, 3) with n ≥ 1."""


class OnCpu:
    """A call's photos are dealt out to threads that each run the model by themselves.

    ONNX Runtime's own threads share each operator and wait for each other after it, which costs time
    (benchmarks/engine_threads.py). With two calls at a time, cores that are done with one begin with the next.
    """

    provider = CPU
    calls = 2

    def __init__(self, path: Path, threads: int, batch_size: int) -> None:
        """Raises VariantError if the file cannot be loaded."""
        self.sizes: tuple[int, ...] = (1, batch_size)
        try:
            self.first = open_session(path)  # one thread for each call: several calls run beside each other
        except Exception as error:  # ONNX Runtime raises its own, unexported classes
            raise VariantError(f"{path}: ONNX Runtime cannot load it ({error}); export the model again") from error
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="infer")

    def infer(self, photos: Pixels) -> Inferred:
        parts = np.array_split(photos, min(self._threads, len(photos)))
        return _joined(self._pool.map(lambda part: _run(self.first, part), parts))


class OnCuda:
    """Batches of a few sizes only, each in a session of its own.

    A convolution of ONNX Runtime keeps cuDNN's plan for the last shape that it saw, and no other (Conv::UpdateState in
    1.20 and later): in one session, each batch of another size than the one before would have all planned anew.
    """

    provider = CUDA

    def __init__(self, path: Path, batch_size: int, cuda: Cuda) -> None:
        """Raises NoCudaError if ONNX Runtime cannot load the file with CUDA, or computes elsewhere."""
        self.calls = cuda.calls
        self.sizes = buckets(batch_size)
        self._sessions = {size: _open_with_cuda(path, cuda.options) for size in self.sizes}
        self.first = self._sessions[self.sizes[0]]
        self._turns = threading.BoundedSemaphore(cuda.calls)

    def infer(self, photos: Pixels) -> Inferred:
        batches = list(in_buckets(photos, self.sizes))  # padded before the GPU is taken
        with self._turns:
            return _joined(_run(self._sessions[len(batch)], batch, kept) for batch, kept in batches)


def _open_with_cuda(path: Path, options: Mapping[str, str]) -> Any:
    look = "check the driver (nvidia-smi) and the CUDA and cuDNN libraries"
    _preload()
    try:
        session = open_session(path, [(CUDA, dict(options)), CPU])
    except Exception as error:
        raise NoCudaError(f"ONNX Runtime cannot load {path} with it ({error}): {look}") from error
    # Without CUDA's libraries it loads all the same, on the CPU and without a word; only its own list tells.
    provider = session.get_providers()[0]
    if provider != CUDA:
        raise NoCudaError(f"ONNX Runtime fell back to {provider}: {look}")
    return session


@cache
def _preload() -> None:
    """CUDA's and cuDNN's libraries, from where pip put them.

    What is missing ONNX Runtime prints, where the answers of `count --json` belong.
    """
    said = io.StringIO()
    with redirect_stdout(said):
        ort.preload_dlls()
    for line in said.getvalue().splitlines():
        logger.warning("CUDA: %s", line)


def _run(session: Any, photos: Pixels, kept: int | None = None) -> Inferred:
    """The answers to the first `kept` photos, or to all."""
    distribution, embeddings = session.run([PROBABILITIES, EMBEDDING], {INPUT: photos})
    if len(distribution) != len(photos):
        raise BinwatchError(
            f"the model answered {many(len(distribution), 'photo')} of {len(photos):,}; export it again"
        )
    return Inferred(distribution[:kept], embeddings[:kept])


def _joined(answers: Iterable[Inferred]) -> Inferred:
    parts = list(answers)
    return Inferred(
        np.concatenate([part.distribution for part in parts]), np.concatenate([part.embeddings for part in parts])
    )
