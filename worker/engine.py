"""ONNX Runtime on one model bundle: arrays of photos in, probabilities and embeddings out."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from binwatch.bundle import EMBEDDING, INPUT, PROBABILITIES, Bundle, Card, Precision
from binwatch.errors import BinwatchError, BundleError
from binwatch.settings import PrecisionChoice, Provider
from worker.buckets import buckets, in_buckets

logger = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_QUIET = 3  # ONNX Runtime's log level "error": its warnings about node placement are ours to check, not to print


_FELL_BACK = (
    "BINWATCH_PROVIDER={} but ONNX Runtime fell back to {}: check the driver and the CUDA and cuDNN libraries, or set"
    " BINWATCH_PROVIDER=cpu"
)


class ProviderError(BinwatchError):
    """ONNX Runtime does not compute where the settings say that it must."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """What the model says of n photos, in the same order.

    `probabilities` is float32 (n, 7), each row sums to 1; `embeddings` is float32 (n, embedding_size).
    """

    probabilities: npt.NDArray[np.float32]
    embeddings: npt.NDArray[np.float32]


class Engine:
    """One loaded model. Safe to share: calls from several threads queue, since each call uses every core by itself.

    On a CPU, a call's photos are dealt out to threads that each run the model by themselves. ONNX Runtime's own threads
    share each operator and wait for each other after it, which costs time (benchmarks/engine_threads.py).
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        provider: Provider = Provider.AUTO,
        precision: PrecisionChoice = PrecisionChoice.AUTO,
        threads: int = 0,
        batch_size: int = 16,
    ) -> None:
        """`batch_size` is the most photos that a call will have; more are counted too, on CUDA in several batches."""
        self.card: Card = bundle.card
        self._threads = threads or len(os.sched_getaffinity(0))
        for wanted in _wanted(provider):
            self.precision = _precision(precision, wanted, bundle.card)
            path = bundle.model(self.precision)
            self._session = _open(path, wanted)
            # ONNX Runtime falls back to the CPU without an exception; only the session's own list tells.
            self.provider = str(self._session.get_providers()[0])
            if self.provider == wanted:
                break
            logger.warning("ONNX Runtime computes on %s although it offers %s", self.provider, wanted)
        else:
            raise ProviderError(_FELL_BACK.format(provider, self.provider))
        _check_against_card(self._session, bundle.card, path)
        self._lock = threading.Lock()  # of the GPU; on a CPU, the pool's size is the limit
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="infer")
        self._batch_size = batch_size
        self._buckets = buckets(batch_size) if self.provider == CUDA else None

    @property
    def calls(self) -> int:
        """How many calls at a time keep the machine at work: on a CPU, cores that are done begin with the next one."""
        return 1 if self.provider == CUDA else 2

    def warm(self) -> None:
        """Count blank photos, so that the first call of each batch size does its allocating before there is a photo."""
        side = self.card.input_size
        for photos in self._buckets or (1, self._batch_size):
            self.infer(np.zeros((photos, side, side, 3), np.uint8))

    def infer(self, photos: npt.NDArray[np.uint8]) -> Inferred:
        """Count `photos`, uint8 (n, size, size, 3) with n ≥ 1."""
        if self._buckets is None:
            return _joined(self._pool.map(self._run, np.array_split(photos, min(self._threads, len(photos)))))
        with self._lock:
            return _joined(_first(kept, self._run(batch)) for batch, kept in in_buckets(photos, self._buckets))

    def _run(self, photos: npt.NDArray[np.uint8]) -> Inferred:
        probabilities, embeddings = self._session.run([PROBABILITIES, EMBEDDING], {INPUT: photos})
        if len(probabilities) != len(photos):
            raise BinwatchError(f"the model answered {len(probabilities)} photos of {len(photos)}; export it again")
        return Inferred(probabilities, embeddings)


def _first(photos: int, answer: Inferred) -> Inferred:
    return Inferred(answer.probabilities[:photos], answer.embeddings[:photos])


def _joined(answers: Iterable[Inferred]) -> Inferred:
    parts = list(answers)
    return Inferred(
        np.concatenate([part.probabilities for part in parts]), np.concatenate([part.embeddings for part in parts])
    )


def _wanted(choice: Provider) -> list[str]:
    """Providers to try, in order. Each is a load of its own, since each has a best variant of the model."""
    has_cuda = CUDA in ort.get_available_providers()
    if choice is Provider.CUDA and not has_cuda:
        raise ProviderError(
            "BINWATCH_PROVIDER=cuda but the installed ONNX Runtime is built without CUDA: install Binwatch with the"
            " extra gpu in place of cpu, or set BINWATCH_PROVIDER=cpu"
        )
    if choice is Provider.AUTO:
        return [CUDA, CPU] if has_cuda else [CPU]
    return [CUDA] if choice is Provider.CUDA else [CPU]


def _precision(choice: PrecisionChoice, provider: str, card: Card) -> Precision:
    if choice is not PrecisionChoice.AUTO:
        return Precision(choice.value)
    best = Precision.FP16 if provider == CUDA else Precision.INT8
    return best if best in card.variants else next(p for p in (Precision.FP32, *card.variants) if p in card.variants)


def _open(path: Path, provider: str) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # the caller's; several callers run beside each other
    options.log_severity_level = _QUIET
    if provider == CUDA and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    try:
        return ort.InferenceSession(str(path), options, providers=_provider_options(provider))
    except Exception as error:  # ONNX Runtime raises its own, unexported classes
        raise BundleError(f"{path}: ONNX Runtime cannot load it ({error}); export the model again") from error


def _provider_options(provider: str) -> list[Any]:
    if provider == CUDA:
        # The default, EXHAUSTIVE, tries every algorithm again for each new batch size.
        return [(CUDA, {"cudnn_conv_algo_search": "HEURISTIC"}), CPU]
    return [CPU]


def _check_against_card(session: Any, card: Card, path: Path) -> None:
    side, classes = card.input_size, len(card.classes)
    wanted = {
        INPUT: ("tensor(uint8)", [side, side, 3]),
        PROBABILITIES: ("tensor(float)", [classes]),
        EMBEDDING: ("tensor(float)", [card.embedding_size]),
    }
    found = {node.name: (node.type, list(node.shape[1:])) for node in (*session.get_inputs(), *session.get_outputs())}
    for name, (kind, shape) in wanted.items():
        if found.get(name) != (kind, shape):
            raise BundleError(
                f"{path}: the card promises {name!r} as {kind} (batch, {', '.join(map(str, shape))}), the ONNX file has"
                f" {found.get(name, 'nothing of that name')}; export the bundle again"
            )
    for node in session.get_inputs():
        if isinstance(node.shape[0], int):
            raise BundleError(
                f"{path}: {node.name!r} takes a batch size of {node.shape[0]} only; export it with a free"
                " batch dimension"
            )
