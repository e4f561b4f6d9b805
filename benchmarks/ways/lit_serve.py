"""Counts photos sent over HTTP with LitServe, using the same ONNX file and the same function for decoding.

    python -m benchmarks.ways.lit_serve --port 8081 --workers 4 --threads 1

Photos are sent as base64 in JSON, as in LitServe's guide: its requests are JSON or forms. They are decoded and counted
in its worker processes; `--threads` is the number of ONNX Runtime threads in each, 0 for the default.
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path
from typing import Any

import litserve
import numpy as np

from binwatch.bundle import INPUT_NAME, PROBABILITIES_OUTPUT, Bundle, Precision
from binwatch.counts import class_probabilities, predict_counts
from binwatch.onnx_session import open_session
from binwatch.settings import DEFAULT_MODEL, Settings


class CountAPI(litserve.LitAPI):
    """Decodes photos and predicts their classes."""

    def __init__(self, model: Path, threads: int, **batching: Any) -> None:
        super().__init__(**batching)
        self._folder, self._threads = model, threads

    def setup(self, device: str) -> None:
        """Load the model; called once in each worker."""
        bundle = Bundle(self._folder)
        self._card = bundle.card
        path = bundle.model_path(Precision.INT8)
        self._session = open_session(path, threads=self._threads, spin=not self._threads)

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        """uint8 (size, size, 3)."""
        return self._card.load_photo(base64.b64decode(request["photo"])).pixels

    def predict(self, x: np.ndarray) -> np.ndarray:
        """uint8 (n, size, size, 3) → classes, int64 (n,)."""
        (probabilities,) = self._session.run([PROBABILITIES_OUTPUT], {INPUT_NAME: x})
        return predict_counts(self._card.count_rule, class_probabilities(probabilities))

    def encode_response(self, output: np.int64) -> dict[str, int]:
        """The response, with the field name of Binwatch's own server."""
        return {"predicted": int(output)}


def main() -> None:
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    batching = {"max_batch_size": settings.batch_size, "batch_timeout": settings.serve_batch_wait_ms / 1000}
    api = CountAPI(options.model, options.threads, **batching)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=options.workers)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
