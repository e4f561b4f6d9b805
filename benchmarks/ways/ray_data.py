"""Counts the photos of a folder with Ray Data: `read_binary_files`, then `map_batches` with actors that hold the model.

    python -m benchmarks.ways.ray_data FOLDER [--actors 4 --batch-size 16 --threads 1]

Without options, Ray and ONNX Runtime use their defaults. Photos are decoded by binwatch.image and counted with the same
ONNX file, both in the actors: decoding elsewhere would send 150 KB per photo through the object store.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ways.report import report
from binwatch.bundle import INPUT_NAME, PROBABILITIES_OUTPUT, Bundle, Precision
from binwatch.cores import usable_cores
from binwatch.counts import class_probabilities, predict_counts
from binwatch.onnx_session import open_session

OBJECT_STORE_BYTES = 10**9
# Actors reserve most of each core, and reading the rest: without any left, nothing would be read.
ACTOR_CPUS, READ_CPUS = 0.75, 0.25


class CountingActor:
    """An actor that loads the model once and counts batches."""

    def __init__(self, folder: str, threads: int) -> None:
        bundle = Bundle(Path(folder))
        self._card = bundle.card
        path = bundle.model_path(Precision.INT8)
        self._session = open_session(path, threads=threads, spin=not threads)
        self._ready = time.time()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        began = time.time()
        pixels = np.stack([self._card.load_photo(data).pixels for data in batch["bytes"]])
        (probabilities,) = self._session.run([PROBABILITIES_OUTPUT], {INPUT_NAME: pixels})
        photos = len(pixels)
        return {
            "path": batch["path"],
            "predicted": predict_counts(self._card.count_rule, class_probabilities(probabilities)),
            "began": np.full(photos, began),
            "ready": np.full(photos, self._ready),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--actors", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        ray.init(
            num_cpus=usable_cores(),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            _temp_dir=folder,
        )
        try:
            rows = count(options.folder, options.model, options.actors, options.batch_size, options.threads)
            ended = time.time()
        finally:
            ray.shutdown()
    predicted = {Path(row["path"]).name: int(row["predicted"]) for row in rows}
    report(predicted, *steady_photos_and_seconds(rows, ended))


def steady_photos_and_seconds(rows: list[dict[str, Any]], ended: float) -> tuple[int, float]:
    """Photos and seconds from the start of the first or the last actor to the end, whichever makes Ray faster.

    While some actors are still starting, the others have all cores; if the last one starts late, few photos are left.
    """
    candidates = []
    for pick in (min, max):
        ready = pick(row["ready"] for row in rows)
        calls = [row["began"] for row in rows if row["began"] >= ready]
        if calls:
            candidates.append((len(calls), ended - min(calls)))
    return max(candidates, key=lambda candidate: candidate[0] / candidate[1])


def count(folder: Path, model: Path, actors: int, batch_size: int, threads: int) -> list[dict[str, Any]]:
    """One row for each photo, with the times of its call. 0 selects the default of Ray or ONNX Runtime."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    tuned = {}
    if actors:
        tuned = {"num_cpus": ACTOR_CPUS, "compute": ray.data.ActorPoolStrategy(size=actors)}
    photos = ray.data.read_binary_files(
        str(folder.absolute()), include_paths=True, num_cpus=READ_CPUS if actors else None
    )
    counted = photos.map_batches(
        CountingActor,
        fn_constructor_args=(str(model.absolute()), threads),
        **({"batch_size": batch_size} if batch_size else {}),
        **tuned,
    )
    return list(counted.iter_rows())


if __name__ == "__main__":
    main()
