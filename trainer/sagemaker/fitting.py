"""The work of each process of a training job: read the job's hyperparameters, train, and export a bundle.

`container` starts it, by torchrun if the job has several GPUs or machines.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from binwatch.bundle import Precision
from binwatch.errors import BinwatchError
from binwatch.image import SIZE
from trainer.config import Config, read_config, source_text
from trainer.data.source import prepared_quality
from trainer.data.split import Split
from trainer.display import Display, silent_display
from trainer.distributed.context import joined
from trainer.errors import ConfigError
from trainer.evaluation import report
from trainer.evaluation.evaluate import evaluate
from trainer.export.bundle import ExportOptions, export
from trainer.prepare.outputs import MANIFEST
from trainer.prepare.photo_store import PHOTOS
from trainer.sagemaker import metric_lines
from trainer.sagemaker.layout import DATA, WEIGHTS, Layout
from trainer.train.checkpoint import load
from trainer.train.fit import fit, saved_run
from trainer.train.run_files import BEST, CURVES, LAST, LOG

EXPORT = "export."
VARIANTS, MAX_LOSS, VERSION = "export.variants", "export.max_loss", "export.version"
"""Hyperparameters beside those of the configuration."""


def configuration(layout: Layout) -> Config:
    """The configuration that follows from the job's hyperparameters and channels. Raises ConfigError."""
    changes = {name: value for name, value in layout.changes().items() if not name.startswith(EXPORT)}
    size = changes.get("data.size", SIZE)
    folder = layout.channel(DATA)
    if not (folder / MANIFEST).is_file():
        raise ConfigError(
            f"channel {DATA!r} has no {MANIFEST}: give the job a folder that `python -m trainer prepare` wrote"
        )
    given = {"photos": folder / PHOTOS, "index": folder / MANIFEST, "jpeg_quality": prepared_quality(folder, size) or 0}
    weights = _weights(layout.channel(WEIGHTS))
    found = {f"data.{name}": str(value) if isinstance(value, Path) else value for name, value in given.items()}
    started = {"model.weights": str(weights)} if weights else {}
    return read_config(None, found | started | _suited_to_the_machine() | changes)


def run(layout: Layout, display: Display) -> None:
    """Train, or continue an interrupted run; the main process then exports. Raises BinwatchError."""
    config = configuration(layout)
    options = export_options(layout)  # now, so that a mistake is reported before training
    folder = layout.checkpoints
    with joined() as context:
        shown = display if context.is_main else silent_display()
        # SageMaker restores checkpoints on every machine. Those of the main process's machine are used.
        saved = saved_run(folder, context=context) if context.broadcast((folder / LAST).exists()) else None
        best = fit(
            saved.config if saved else config, folder, shown, saved=saved,
            after=_say if context.is_main else lambda _: None, context=context,
        )  # fmt: skip
    if context.is_main:
        _finish(layout, best, options, display)


def export_options(layout: Layout) -> ExportOptions:
    """Options of `export`, from the hyperparameters export.variants, export.max_loss and export.version."""
    given = layout.changes()
    names = str(given.get(VARIANTS, "fp32,fp16,int8")).split(",")
    try:
        variants = tuple(Precision(name.strip()) for name in names)
        return ExportOptions(
            variants, float(given.get(MAX_LOSS, ExportOptions.max_loss)), source_text(given.get(VERSION, ""))
        )
    except ValueError as error:
        raise ConfigError(f"{VARIANTS} or {MAX_LOSS}: {error}; choose from {', '.join(Precision)}") from error


def _finish(layout: Layout, best: Path, options: ExportOptions, display: Display) -> None:
    """Write the bundle (model.tar.gz), and checkpoint, log and evaluation (output.tar.gz)."""
    # SageMaker judges a trial by the last value in the log. The best epoch is exported, which may not be the last one.
    _say({name: value for name, value in load(best).history[-1].items() if name.startswith("val_")})
    found = evaluate(best, Split.TEST, {}, display)
    main = found.main
    figures = {"accuracy": main.accuracy, "within_one": main.within_one, "mae": main.mae, "rmse": main.rmse}
    _say({f"test_{name}": each.value for name, each in figures.items()})
    layout.outputs.mkdir(parents=True, exist_ok=True)
    report.write(found, layout.outputs / "evaluation-test.json")
    for name in (BEST, LOG, CURVES):
        shutil.copyfile(layout.checkpoints / name, layout.outputs / name)
    layout.model.mkdir(parents=True, exist_ok=True)
    export(best, layout.model, options, {}, display)


def _say(row: dict[str, float]) -> None:
    print(metric_lines.line(row), flush=True)


def _suited_to_the_machine() -> dict[str, Any]:
    """Defaults of this machine: if it has a GPU, this is used, with the options that are fast there."""
    if not torch.cuda.is_available():
        return {}
    return {"train.device": "cuda", "train.precision": "bf16", "train.channels_last": True}


def _weights(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    files = sorted(file for file in folder.iterdir() if file.suffix in {".npz", ".pt", ".pth"})
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ConfigError(f"channel {WEIGHTS!r}: expected one .npz or .pt file, found {names}")
    return files[0]


def main(root: str) -> int:
    """One process of several, started by torchrun."""
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
