"""Exported models in ONNX Runtime, as workers run them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from binwatch import self_check
from binwatch.bundle import EMBEDDING_OUTPUT, INPUT_NAME, PROBABILITIES_OUTPUT, Bundle, Precision, SelfCheck
from binwatch.cores import usable_cores
from binwatch.errors import BundleError
from binwatch.onnx_session import open_session
from trainer.data.dataset import PhotoSet
from trainer.data.read_ahead import read_ahead

BATCH_SIZE = 16
READER_THREADS = 2
TIMING_ROUNDS = 5

PhotoBatches = Iterable[npt.NDArray[np.uint8]]
"""Decoded photos, uint8 (batch, size, size, 3) each."""
Progress = Callable[[PhotoBatches], PhotoBatches]


class OnnxModel:
    """An ONNX file on the CPU."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        # Threads that spin while they wait would take CPU time from the decoding of the next photos.
        self._session = open_session(file, threads=threads or usable_cores(), spin=False)
        self.side: int = self._session.get_inputs()[0].shape[1]
        """Side of the input, in pixels."""

    @classmethod
    def from_bundle(cls, bundle: Bundle, precision: Precision) -> OnnxModel:
        """Open a bundle's variant. Raises BundleError if it does not pass the self-check of its card."""
        path = bundle.model_path(precision)
        model = cls(path)
        expected = bundle.card.variants[precision].self_check
        mismatch = expected and self_check.describe_mismatch(expected, *model(self_check.make_photos(model.side)))
        if mismatch:
            raise BundleError(f"{path}: fails its self-check on this CPU: {mismatch}; use another variant or machine")
        return model

    def __call__(self, photos: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Compute probabilities (batch, quantities) and embeddings (batch, embedding).

        `photos` are uint8 (batch, size, size, 3).
        """
        probabilities, embedding = self._session.run([PROBABILITIES_OUTPUT, EMBEDDING_OUTPUT], {INPUT_NAME: photos})
        return probabilities, embedding


def self_check_of(model: OnnxModel) -> SelfCheck:
    """Return the self-check for a card: the outputs of `model` for the generated images."""
    return self_check.make_self_check(*model(self_check.make_photos(model.side)))


def run(
    model: OnnxModel, photos: PhotoSet, progress: Progress = lambda batches: batches
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Compute the probabilities and embeddings of all photos, in order."""
    outputs = [model(pixels) for pixels in progress(decoded_batches(photos))]
    return np.concatenate([p for p, _ in outputs]), np.concatenate([e for _, e in outputs])


def decoded_batches(photos: PhotoSet) -> PhotoBatches:
    """Yield decoded photos in batches, read ahead by threads."""
    positions = [range(start, min(start + BATCH_SIZE, len(photos))) for start in range(0, len(photos), BATCH_SIZE)]
    return read_ahead(photos.pixels, positions, READER_THREADS)


def photos_per_second(model: OnnxModel, pixels: npt.NDArray[np.uint8]) -> float:
    """Measure the speed on one batch: the best of several rounds, because other load can only reduce it."""
    model(pixels)
    best_seconds = float("inf")
    for _ in range(TIMING_ROUNDS):
        start = time.perf_counter()
        model(pixels)
        best_seconds = min(best_seconds, time.perf_counter() - start)
    return len(pixels) / best_seconds
