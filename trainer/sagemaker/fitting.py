"""The work of each process of a training job: read the hyperparameters, train, and export a bundle.

`container` runs it, with torchrun if the job has several GPUs or machines.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from binwatch.bundle import Precision
from binwatch.errors import BinwatchError
from binwatch.image import INPUT_SIZE
from trainer.config import Config, read_config, source_text
from trainer.data.source import prepared_jpeg_quality
from trainer.data.split import Split
from trainer.display import Display, silent_display
from trainer.distributed.context import process_group
from trainer.errors import ConfigError
from trainer.evaluation import report
from trainer.evaluation.evaluate import evaluate
from trainer.export.bundle import ExportOptions, export
from trainer.prepare.outputs import MANIFEST
from trainer.prepare.photo_store import PHOTOS
from trainer.sagemaker import metric_lines
from trainer.sagemaker.layout import DATA, WEIGHTS, Layout
from trainer.train.checkpoint import load
from trainer.train.fit import fit, load_run
from trainer.train.run_files import BEST_CHECKPOINT, CURVES_FILE, LAST_CHECKPOINT, LOG_FILE

EXPORT_PREFIX = "export."
VARIANTS, MAX_LOSS, VERSION = "export.variants", "export.max_loss", "export.version"
"""Hyperparameters that are not options of the training configuration."""


def configuration(layout: Layout) -> Config:
    """Read the training configuration from the job's hyperparameters and channels. Raises ConfigError."""
    changes = {name: value for name, value in layout.changes().items() if not name.startswith(EXPORT_PREFIX)}
    size = changes.get("data.size", INPUT_SIZE)
    folder = layout.channel(DATA)
    if not (folder / MANIFEST).is_file():
        raise ConfigError(
            f"channel {DATA!r} has no {MANIFEST}: give the job a folder that `python -m trainer prepare` wrote"
        )
    defaults: dict[str, Any] = {
        "data.photos": str(folder / PHOTOS),
        "data.index": str(folder / MANIFEST),
        "data.jpeg_quality": prepared_jpeg_quality(folder, size) or 0,
    }
    if weights := _weights_file(layout.channel(WEIGHTS)):
        defaults["model.weights"] = str(weights)
    return read_config(None, defaults | _machine_defaults() | changes)


def run(layout: Layout, display: Display) -> None:
    """Train, or continue an interrupted run. The main process then exports the model. Raises BinwatchError."""
    config = configuration(layout)
    options = export_options(layout)  # read before training, so that a mistake is reported early
    folder = layout.checkpoints
    with process_group() as context:
        own_display = display if context.is_main else silent_display()
        # SageMaker restores checkpoints on every machine. Those of the main process's machine are used.
        saved = load_run(folder, context=context) if context.broadcast((folder / LAST_CHECKPOINT).exists()) else None
        best = fit(
            saved.config if saved else config, folder, own_display, saved=saved,
            on_epoch_end=_log_metrics if context.is_main else lambda _: None, context=context,
        )  # fmt: skip
    if context.is_main:
        _finish(layout, best, options, display)


def export_options(layout: Layout) -> ExportOptions:
    """Read the options of `export` from the hyperparameters export.variants, export.max_loss and export.version."""
    hyperparameters = layout.changes()
    names = str(hyperparameters.get(VARIANTS, "fp32,fp16,int8")).split(",")
    try:
        variants = tuple(Precision(name.strip()) for name in names)
        max_loss = float(hyperparameters.get(MAX_LOSS, ExportOptions.max_loss))
        return ExportOptions(variants, max_loss, source_text(hyperparameters.get(VERSION, "")))
    except ValueError as error:
        raise ConfigError(f"{VARIANTS} or {MAX_LOSS}: {error}; choose from {', '.join(Precision)}") from error


def _finish(layout: Layout, best: Path, options: ExportOptions, display: Display) -> None:
    """Write the bundle (for model.tar.gz), and the checkpoint, log and evaluation (for output.tar.gz)."""
    # SageMaker judges a trial by the last value in the log, so log the best epoch again, which is the exported one.
    _log_metrics({name: value for name, value in load(best).history[-1].items() if name.startswith("val_")})
    evaluation = evaluate(best, Split.TEST, {}, display)
    main = evaluation.main
    figures = {"accuracy": main.accuracy, "within_one": main.within_one, "mae": main.mae, "rmse": main.rmse}
    _log_metrics({f"test_{name}": figure.value for name, figure in figures.items()})
    layout.outputs.mkdir(parents=True, exist_ok=True)
    report.write(evaluation, layout.outputs / "evaluation-test.json")
    for name in (BEST_CHECKPOINT, LOG_FILE, CURVES_FILE):
        shutil.copyfile(layout.checkpoints / name, layout.outputs / name)
    layout.model.mkdir(parents=True, exist_ok=True)
    export(best, layout.model, options, {}, display)


def _log_metrics(row: dict[str, float]) -> None:
    print(metric_lines.line(row), flush=True)


def _machine_defaults() -> dict[str, Any]:
    """Return the defaults for this machine: if it has a GPU, use it, with the options that are fast there."""
    if not torch.cuda.is_available():
        return {}
    return {"train.device": "cuda", "train.precision": "bf16", "train.channels_last": True}


def _weights_file(folder: Path) -> Path | None:
    """Return the only file in the weights channel; None if the job has no such channel."""
    if not folder.is_dir():
        return None
    files = sorted(file for file in folder.iterdir() if file.suffix in {".npz", ".pt", ".pth"})
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ConfigError(f"channel {WEIGHTS!r}: expected one .npz or .pt file, found {names}")
    return files[0]


def main(root: str) -> int:
    """Run as one of several processes that torchrun has started. Returns the exit status."""
    layout = Layout(Path(root))
    try:
        run(layout, Display())
    except BinwatchError as error:
        layout.fail(str(error))
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
