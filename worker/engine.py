"""Load and verify the model of a bundle. An engine maps arrays of photos to probabilities and embeddings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from binwatch import self_check
from binwatch.bundle import EMBEDDING_OUTPUT, INPUT_NAME, PROBABILITIES_OUTPUT, Bundle, Card, Precision
from binwatch.cores import usable_cores
from binwatch.counts import column_names
from binwatch.errors import BinwatchError, BundleError
from binwatch.onnx_session import CPU_PROVIDER
from binwatch.settings import PrecisionChoice, Provider, Settings
from worker.inference_sessions import (
    CUDA,
    CpuModel,
    CudaModel,
    CudaOptions,
    CudaUnavailableError,
    LoadedModel,
    ModelOutput,
    VariantError,
)

logger = logging.getLogger(__name__)


class ProviderError(BinwatchError):
    """ONNX Runtime cannot run on the device that the settings require."""


class SelfCheckResult(StrEnum):
    """Result of the card's self-check: whether the model's output matches the one at export. A metric label."""

    PASSED = "passed"
    ABSENT = "absent"
    """The card has no self-check: the bundle is older than self-checks."""
    FELL_BACK = "fell_back"
    """The preferred variant cannot be used here. Another is in use, which passed or has no self-check."""


class Engine:
    """One loaded model. Thread-safe: concurrent calls share the cores of the CPU, or queue for the GPU."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        provider: Provider = Provider.AUTO,
        precision: PrecisionChoice = PrecisionChoice.AUTO,
        threads: int = 0,
        batch_size: int = 16,
        cuda: CudaOptions | None = None,
    ) -> None:
        """`batch_size` is the usual maximum number of photos in a call; on CUDA, a larger call is split into batches.

        Raises ProviderError or BundleError if no variant that the settings allow passes its checks.
        """
        self.card: Card = bundle.card
        self._bundle, self._batch_size = bundle, batch_size
        self._threads, self._cuda = threads or usable_cores(), cuda or CudaOptions()
        first_error: VariantError | None = None
        without_cuda = False
        for candidate, variant in _candidates(provider, precision, bundle.card):
            if candidate == CUDA and without_cuda:
                continue
            try:
                self._load(candidate, variant)
            except CudaUnavailableError as error:
                if provider is Provider.CUDA:
                    raise ProviderError(f"BINWATCH_PROVIDER=cuda but {error}, or set BINWATCH_PROVIDER=cpu") from error
                logger.warning("computing on the CPU, although ONNX Runtime was built with CUDA: %s", error)
                without_cuda = True
            except VariantError as error:
                logger.warning("model %s: its %s variant cannot be used: %s", self.card.version, variant, error)
                first_error = first_error or error
            else:
                self.self_check = self._self_check_result(fell_back=first_error is not None)
                if self.card.unlearned_classes:
                    unlearned_classes = column_names(self.card.unlearned_classes)
                    logger.warning(
                        "model %s cannot predict %s: no training photo showed it", self.card.version, unlearned_classes
                    )
                return
        assert first_error is not None  # otherwise the loop has returned or raised
        raise first_error

    @classmethod
    def from_settings(cls, bundle: Bundle, settings: Settings) -> Engine:
        """Load the bundle's model on the device and in the precision of the settings."""
        return cls(
            bundle,
            provider=settings.provider,
            precision=settings.precision,
            threads=settings.inference_threads,
            batch_size=settings.batch_size,
        )

    def _load(self, provider: str, precision: Precision) -> None:
        """Load and check one variant.

        Raises CudaUnavailableError, VariantError if another variant may work, or BundleError if the bundle is faulty.
        """
        path = self._bundle.model_path(precision)
        self.precision = precision
        self._sessions: LoadedModel = (
            CudaModel(path, self._batch_size, self._cuda)
            if provider == CUDA
            else CpuModel(path, self._threads, self._batch_size)
        )
        _check_against_card(self._sessions.first_session, self.card, path)
        expected = self.card.variants[precision].self_check
        if expected is not None:
            output = self.infer(self_check.make_photos(self.card.input_size))
            mismatch = self_check.describe_mismatch(expected, output.distribution, output.embeddings)
            if mismatch is not None:
                raise VariantError(
                    f"{path}: fails its self-check on {provider}: {mismatch}; set BINWATCH_PRECISION to another"
                    " variant of the bundle, or use another machine"
                )

    def _self_check_result(self, *, fell_back: bool) -> SelfCheckResult:
        if fell_back:
            logger.warning("model %s: counting with %s on %s instead", self.card.version, self.precision, self.provider)
            return SelfCheckResult.FELL_BACK
        if self.card.variants[self.precision].self_check is None:
            logger.info(
                "model %s: its card has no self-check for %s, so it is used unchecked; python -m trainer self-check"
                " FOLDER adds one",
                self.card.version,
                self.precision,
            )
            return SelfCheckResult.ABSENT
        return SelfCheckResult.PASSED

    def __str__(self) -> str:
        return f"model {self.card.version}, {self.precision} on {self.provider}"

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the execution provider in use."""
        return self._sessions.provider

    @property
    def concurrent_calls(self) -> int:
        """Number of concurrent calls that keep the machine busy."""
        return self._sessions.concurrent_calls

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes that `warm_up` runs. CUDA uses no others."""
        return self._sessions.batch_sizes

    def warm_up(self) -> None:
        """Count blank photos in each batch size, so that memory is allocated before the first real photo."""
        side = self.card.input_size
        for batch_size in self.batch_sizes:
            self.infer(np.zeros((batch_size, side, side, 3), np.uint8))

    def infer(self, photos: npt.NDArray[np.uint8]) -> ModelOutput:
        """Count `photos`, uint8 (n, size, size, 3) with n ≥ 1."""
        return replace(self._sessions.infer(photos), rule=self.card.count_rule)


def _providers(choice: Provider) -> list[str]:
    """Return the providers to try, in order. Each loads the model separately, since each prefers another variant."""
    has_cuda = CUDA in ort.get_available_providers()
    if choice is Provider.CUDA and not has_cuda:
        raise ProviderError(
            "BINWATCH_PROVIDER=cuda but the installed ONNX Runtime is built without CUDA: install Binwatch with the"
            " extra gpu instead of cpu, or set BINWATCH_PROVIDER=cpu"
        )
    if choice is Provider.AUTO:
        return [CUDA, CPU_PROVIDER] if has_cuda else [CPU_PROVIDER]
    return [CUDA] if choice is Provider.CUDA else [CPU_PROVIDER]


def _candidates(provider: Provider, choice: PrecisionChoice, card: Card) -> Iterator[tuple[str, Precision]]:
    """Yield the pairs of provider and variant to try, best first.

    With `auto`, each provider's last candidate is fp32 if the bundle has it.
    """
    for candidate in _providers(provider):
        if choice is not PrecisionChoice.AUTO:
            yield candidate, Precision(choice.value)
            continue
        preferred = (Precision.FP16 if candidate == CUDA else Precision.INT8, Precision.FP32, *card.variants)
        best = next(precision for precision in preferred if precision in card.variants)
        yield candidate, best
        if best is not Precision.FP32 and Precision.FP32 in card.variants:
            yield candidate, Precision.FP32


def _check_against_card(session: Any, card: Card, path: Path) -> None:
    """Raise BundleError unless the session has the inputs and outputs that the card describes."""
    side, n_quantities = card.input_size, card.highest + 2
    expected = {
        INPUT_NAME: ("tensor(uint8)", [side, side, 3]),
        PROBABILITIES_OUTPUT: ("tensor(float)", [n_quantities]),
        EMBEDDING_OUTPUT: ("tensor(float)", [card.embedding_size]),
    }
    actual = {node.name: (node.type, list(node.shape[1:])) for node in (*session.get_inputs(), *session.get_outputs())}
    for name, (kind, shape) in expected.items():
        if actual.get(name) != (kind, shape):
            raise BundleError(
                f"{path}: the card promises {name!r} as {kind} (batch, {', '.join(map(str, shape))}), the ONNX file has"
                f" {actual.get(name, 'nothing of that name')}; export the bundle again"
            )
    for node in session.get_inputs():
        if isinstance(node.shape[0], int):
            raise BundleError(
                f"{path}: {node.name!r} takes a batch size of {node.shape[0]} only; export it with a free"
                " batch dimension"
            )
