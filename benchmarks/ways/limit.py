"""Measures the machine's limit: with photos' bytes in memory, all are decoded on every core, then all are inferred.

python -m benchmarks.ways.limit FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.count_files import limit
from benchmarks.ways.report import report
from binwatch.bundle import Bundle
from binwatch.settings import Settings
from worker.engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(options.folder.iterdir())]
    engine = Engine(Bundle(options.model))
    engine.warm_up()
    report({}, len(photos), sum(limit(engine, photos, Settings.model_fields["batch_size"].default)))


if __name__ == "__main__":
    main()
