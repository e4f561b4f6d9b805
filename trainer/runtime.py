"""Exported models through ONNX Runtime, as the workers run them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from binwatch.bundle import EMBEDDING, INPUT, PROBABILITIES
from binwatch.cores import cores
from trainer.data.dataset import PhotoSet
from trainer.data.epochs import AHEAD, read_ahead

BATCH = 16
READERS = 2
ROUNDS = 5

Chunks = Iterable[npt.NDArray[np.uint8]]
Follow = Callable[[Chunks], Chunks]


class OnnxModel:
    """One ONNX file on the CPU."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        # Threads that spin while they wait would take the processor from whoever decodes the next photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors: hints about the graph are not for the user
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, photos: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """uint8 (batch, size, size, 3) → probabilities (batch, classes) and embedding (batch, embedding)."""
        probabilities, embedding = self._session.run([PROBABILITIES, EMBEDDING], {INPUT: photos})
        return probabilities, embedding


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
    return read_ahead(photos.pixels, jobs, min(READERS, AHEAD))


def photos_per_second(model: OnnxModel, pixels: npt.NDArray[np.uint8]) -> float:
    """Speed on one batch, the best of a few rounds: other work on the machine only ever makes it slower."""
    model(pixels)
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        model(pixels)
        best = min(best, time.perf_counter() - began)
    return len(pixels) / best
