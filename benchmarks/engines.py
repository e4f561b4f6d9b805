"""Command-line options for the engine to measure: a bundle's, or a network with random weights, on a CPU or a GPU."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from binwatch.bundle import Bundle, Card, Precision, make_variant, write_card
from binwatch.image import INPUT_SIZE, load_photo
from binwatch.settings import DEFAULT_MODEL, PrecisionChoice, Provider
from worker.engine import Engine
from worker.inference_sessions import CUDA, CudaOptions

SAMPLES = Path(__file__).parents[1] / "samples" / "bin-images"

Pixels = npt.NDArray[np.uint8]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `bundle` and `engine` read."""
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="folder of a bundle")
    model.add_argument("--architecture", help="instead of a bundle, export this network with random weights")
    parser.add_argument("--provider", type=Provider, choices=list(Provider), default=Provider.AUTO)
    parser.add_argument(
        "--precision", type=PrecisionChoice, choices=list(PrecisionChoice), default=PrecisionChoice.AUTO
    )
    parser.add_argument(
        "--cuda", type=_pair, nargs="+", default=[], metavar="OPTION=VALUE",
        help="options of ONNX Runtime's CUDA provider, in addition to the worker's own, such as prefer_nhwc=1",
    )  # fmt: skip
    parser.add_argument("--calls", type=int, default=CudaOptions().concurrent_calls, help="concurrent batches on a GPU")


@contextmanager
def bundle(options: argparse.Namespace) -> Iterator[Bundle]:
    """The bundle to measure."""
    if options.architecture is None:
        yield Bundle(options.model)
        return
    with TemporaryDirectory() as folder:
        yield _exported(options.architecture, _precision(options), Path(folder))


def engine(options: argparse.Namespace, bundle: Bundle, batch_size: int) -> Engine:
    """The bundle's engine, not warmed up."""
    cuda = CudaOptions({**CudaOptions().provider_options, **dict(options.cuda)}, options.calls)
    return Engine(bundle, provider=options.provider, precision=options.precision, batch_size=batch_size, cuda=cuda)


def batch(size: int, side: int = INPUT_SIZE) -> Pixels:
    """`size` decoded photos of samples/, repeated if there are too few: uint8 (size, side, side, 3)."""
    decoded = [load_photo(file.read_bytes(), size=side).pixels for file in sorted(SAMPLES.glob("*.jpg"))[:size]]
    return np.stack(list(islice(cycle(decoded), size)))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form OPTION=VALUE")
    return name, value


def _precision(options: argparse.Namespace) -> Precision:
    if options.precision is not PrecisionChoice.AUTO:
        return Precision(options.precision.value)
    on_gpu = options.provider is not Provider.CPU and CUDA in ort.get_available_providers()
    return Precision.FP16 if on_gpu else Precision.INT8


def _exported(architecture: str, precision: Precision, folder: Path) -> Bundle:
    """A bundle with random weights, which do not affect the speed. Its card has no accuracy."""
    from trainer.config import ModelConfig  # requires torch, which a bundle does not
    from trainer.export.graph import write_onnx
    from trainer.export.quantize import write_fp16, write_int8
    from trainer.models import build

    network = build(ModelConfig.model_validate({"architecture": architecture, "weights": "none"})).eval()
    fp32, variant = (folder / f"model-{each}.onnx" for each in (Precision.FP32, precision))
    write_onnx(network, 1.0, fp32)
    if precision is Precision.FP16:
        write_fp16(fp32, variant)
    elif precision is Precision.INT8:
        write_int8(fp32, variant, batch(32))
    card = Card(
        version="random", architecture=architecture, created=datetime.now(UTC),
        embedding_size=network.head.embedding_size, temperature=1.0, variants={precision: make_variant(variant)},
    )  # fmt: skip
    write_card(folder, card)
    return Bundle(folder)
