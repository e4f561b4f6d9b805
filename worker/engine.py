"""The model of a bundle, loaded and verified: arrays of photos in, probabilities and embeddings out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from binwatch.bundle import EMBEDDING, INPUT, PROBABILITIES, Bundle, Card, Precision
from binwatch.cores import cores
from binwatch.counts import names_of
from binwatch.errors import BinwatchError, BundleError
from binwatch.settings import PrecisionChoice, Provider
from worker.sessions import CPU, CUDA, Cuda, Inferred, NoCudaError, OnCpu, OnCuda, Sessions

logger = logging.getLogger(__name__)


class ProviderError(BinwatchError):
    """ONNX Runtime does not compute where the settings say that it must."""


class Engine:
    """One loaded model. Safe to share: calls from several threads queue, since each uses all of the machine."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        provider: Provider = Provider.AUTO,
        precision: PrecisionChoice = PrecisionChoice.AUTO,
        threads: int = 0,
        batch_size: int = 16,
        cuda: Cuda | None = None,
    ) -> None:
        """`batch_size` is the most photos that a call will have; more are counted too, on CUDA in several batches."""
        self.card: Card = bundle.card
        for wanted in _wanted(provider):
            self.precision = _precision(precision, wanted, bundle.card)
            path = bundle.model(self.precision)
            try:
                self._sessions: Sessions = (
                    OnCuda(path, batch_size, cuda or Cuda())
                    if wanted == CUDA
                    else OnCpu(path, threads or cores(), batch_size)
                )
                break
            except NoCudaError as error:
                if provider is Provider.CUDA:
                    raise ProviderError(f"BINWATCH_PROVIDER=cuda but {error}, or set BINWATCH_PROVIDER=cpu") from error
                logger.warning("computing on the CPU, although ONNX Runtime was built with CUDA: %s", error)
        _check_against_card(self._sessions.first, bundle.card, path)
        if bundle.card.never:
            never = names_of(bundle.card.never)
            logger.warning("model %s never answers %s: no training photo showed it", bundle.card.version, never)

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of where it computes."""
        return self._sessions.provider

    @property
    def calls(self) -> int:
        """How many calls at a time keep the machine at work."""
        return self._sessions.calls

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes that `warm` goes through. On CUDA there are no others."""
        return self._sessions.sizes

    def warm(self) -> None:
        """Count blank photos, so that the first call of each batch size does its allocating before there is a photo."""
        side = self.card.input_size
        for photos in self.sizes:
            self.infer(np.zeros((photos, side, side, 3), np.uint8))

    def infer(self, photos: npt.NDArray[np.uint8]) -> Inferred:
        """Count `photos`, uint8 (n, size, size, 3) with n ≥ 1."""
        return self._sessions.infer(photos)


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
