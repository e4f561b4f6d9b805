"""Exported models through ONNX Runtime, as the workers run them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from binwatch import self_check
from binwatch.bundle import EMBEDDING, INPUT, PROBABILITIES, Bundle, Precision, SelfCheck
from binwatch.cores import cores
from binwatch.errors import BundleError
from binwatch.onnx_session import open_session
from trainer.data.dataset import PhotoSet
from trainer.data.read_ahead import MIN_READ_AHEAD, read_ahead

BATCH = 16
READERS = 2
ROUNDS = 5

Chunks = Iterable[npt.NDArray[np.uint8]]
Follow = Callable[[Chunks], Chunks]


class OnnxModel:
    """One ONNX file on the CPU."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        # Threads that spin while they wait would take processor time from the decoding of the next photos.
        self._session = open_session(file, threads=threads or cores(), spin=False)
        self.side: int = self._session.get_inputs()[0].shape[1]
        """Side of its input in pixels."""

    @classmethod
    def of(cls, bundle: Bundle, precision: Precision) -> OnnxModel:
        """A bundle's variant. Raises BundleError if it does not pass the self-check of its card."""
        path = bundle.model(precision)
        model = cls(path)
        expected = bundle.card.variants[precision].self_check
        found = expected and self_check.difference(expected, *model(self_check.photos(model.side)))
        if found:
            raise BundleError(f"{path}: fails its self-check on this CPU: {found}; use another variant or machine")
        return model

    def __call__(self, photos: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """uint8 (batch, size, size, 3) → probabilities (batch, quantities) and embedding (batch, embedding)."""
        probabilities, embedding = self._session.run([PROBABILITIES, EMBEDDING], {INPUT: photos})
        return probabilities, embedding


def self_check_of(model: OnnxModel) -> SelfCheck:
    """The self-check for a card: the outputs of `model` for the generated images."""
    return self_check.answers(*model(self_check.photos(model.side)))


def run(
    model: OnnxModel, photos: PhotoSet, follow: Follow = lambda chunks: chunks
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Probabilities and embeddings of all photos, in their order."""
    found = [model(pixels) for pixels in follow(chunks(photos))]
    return np.concatenate([p for p, _ in found]), np.concatenate([e for _, e in found])


def chunks(photos: PhotoSet) -> Chunks:
    """Decoded photos in batches, read ahead."""
    starts = range(0, len(photos), BATCH)
    jobs = [range(start, min(start + BATCH, len(photos))) for start in starts]
    return read_ahead(photos.pixels, jobs, min(READERS, MIN_READ_AHEAD))


def photos_per_second(model: OnnxModel, pixels: npt.NDArray[np.uint8]) -> float:
    """Speed on one batch: the best of a few rounds, because other work on the machine can only reduce it."""
    model(pixels)
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        model(pixels)
        best = min(best, time.perf_counter() - began)
    return len(pixels) / best
