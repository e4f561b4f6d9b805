"""Speed of the int8 file compared with the fp32 file of the same network, as written by `export`.

    python -m benchmarks.int8_speed --architecture resnet50v2 --threads 1

The weights are random, which does not affect the speed. The two alternate, so that other load on the machine affects
both. `export` measures the accuracy lost by int8 and writes it to the model's card.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from binwatch.image import load_photo
from trainer.config import ModelConfig
from trainer.evaluation.onnx_model import OnnxModel
from trainer.export.graph import write_onnx
from trainer.export.quantize import write_int8
from trainer.models import build

SAMPLES = Path(__file__).parents[1] / "samples" / "bin-images"


def photos_per_second(model: OnnxModel, pixels: np.ndarray) -> float:
    began = time.perf_counter()
    model(pixels)
    return len(pixels) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet50v2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()

    files = sorted(SAMPLES.glob("*.jpg"))
    pixels = np.stack([load_photo(file.read_bytes()).pixels for file in files[: max(32, options.batch_size)]])
    batch = pixels[: options.batch_size]
    with TemporaryDirectory() as folder:
        fp32, int8 = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        network = build(ModelConfig.model_validate({"architecture": options.architecture, "weights": "none"})).eval()
        write_onnx(network, 1.0, fp32)
        write_int8(fp32, int8, pixels[:32])
        models = [OnnxModel(file, options.threads) for file in (fp32, int8)]
        for model in models:
            model(batch)
        rounds = [[photos_per_second(model, batch) for model in models] for _ in range(options.rounds)]
    ratios = sorted(int8_rate / fp32_rate for fp32_rate, int8_rate in rounds)
    print(
        f"{options.architecture}, ONNX Runtime, CPU, {options.threads} threads, batches of {options.batch_size};",
        end=" ",
    )
    print(f"medians of {options.rounds} rounds (lowest to highest)")
    for name, column in zip(("fp32", "int8"), zip(*rounds, strict=True), strict=True):
        print(f"{name:6}{statistics.median(column):>8.1f} photos/s ({min(column):.1f} to {max(column):.1f})")
    print(f"{'ratio':6}{statistics.median(ratios):>8.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
