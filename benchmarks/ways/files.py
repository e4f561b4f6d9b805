"""Counts the photos of a folder with Binwatch, using the parts of `python -m worker count`.

    python -m benchmarks.ways.files FOLDER

The command itself does not report when it is ready, so its parts are combined here in the same way.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.ways.report import report
from binwatch.bundle import Bundle
from binwatch.settings import Settings
from worker.engine import Engine
from worker.photo_inputs import find_photos, make_loader
from worker.pipeline import Prediction, load_ahead, predict
from worker.skipped import SkippedTally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    settings = Settings()
    engine = Engine(Bundle(options.model), batch_size=settings.batch_size)
    engine.warm_up()
    ready = time.perf_counter()
    with ThreadPoolExecutor(settings.file_threads) as pool:
        load = make_loader(engine.card, settings.limits)
        loaded = load_ahead(
            pool, find_photos([str(options.folder)], settings, SkippedTally()), load, ahead=4 * settings.batch_size
        )
        predicted = {
            Path(file.name).name: answer.predicted
            for file, answer in predict(engine, loaded, settings.batch_size)
            if isinstance(answer, Prediction)
        }
    report(predicted, len(predicted), time.perf_counter() - ready)


if __name__ == "__main__":
    main()
