"""The commands `fit` and `tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli import paths
from trainer.cli.options import ConfigFile, Freeze, Index, Photos, Settings, collect_changes
from trainer.cli.paths import data_changes
from trainer.config import Config, TrainConfig, parse_assignment, read_config
from trainer.display import Display, silent_display
from trainer.errors import ConfigError
from trainer.train.run_files import check_study


def fit(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the run, e.g. runs/first: checkpoints, log and curves.")
    ],
    photos: Photos = None,
    index: Index = None,
    config: ConfigFile = None,
    settings: Settings = None,
    freeze: Freeze = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help=f"Passes over the training photos (train.epochs). Default: {TrainConfig().epochs}."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the features of frozen layers and the outputs of teachers; runs may share it."
            " Default: features in --out."
        ),
    ] = None,
    from_study: Annotated[
        Path | None,
        typer.Option("--from-study", help="Folder of a study (trainer tune --out): use the options of its best trial."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the run in --out with its own configuration; --epochs may change its length."
        ),
    ] = False,
) -> None:
    """Train a model on labelled photos, and write a checkpoint after each epoch.

    Progress, warnings and figures go to standard error. An interrupted run continues with --resume.
    """
    changes = collect_changes(settings, photos=photos, index=index, freeze=freeze)
    if resume and (config or changes or from_study):
        raise ConfigError("--resume takes the configuration from the checkpoint; only --epochs may be given with it")
    if from_study:
        check_study(from_study)
        from trainer.train.tune import best_options

        changes = best_options(from_study) | changes
    if epochs:
        changes["train.epochs"] = epochs
    if resume:
        paths.check_resumable(out)
        options = None
    else:
        options = read_config(config, changes)
        paths.check_run(options, out)
    _fit(out, options, epochs, cache)


def _fit(out: Path, options: Config | None, epochs: int | None, cache: Path | None) -> None:
    """Train in this process, or in this and other processes of a distributed run.

    Without `options`, continue the run in `out`.
    """
    from trainer.distributed.context import process_group
    from trainer.train.fit import fit as run
    from trainer.train.fit import load_run

    with process_group() as context:
        display = Display() if context.is_main else silent_display()
        if options:
            best = run(options, out, display, cache=cache, context=context)
        else:
            saved = load_run(out, epochs, context)
            best = run(saved.config, out, display, saved=saved, cache=cache, context=context)
        display.say(f"best checkpoint: {best}")


def tune(
    out: Annotated[Path, typer.Option("--out", help="Folder of the study; an existing study is continued.")],
    photos: Photos = None,
    index: Index = None,
    config: ConfigFile = None,
    settings: Settings = None,
    trials: Annotated[int, typer.Option(min=1, help="Total number of trials, including those of earlier runs.")] = 30,
    preset: Annotated[str, typer.Option(help="Search space: default, or capstone.")] = "default",
    jobs: Annotated[int, typer.Option(min=1, help="Concurrent trials, each in its own process.")] = 1,
) -> None:
    """Search for the best options with Optuna; use them with fit --from-study."""
    changes = dict(parse_assignment(text) for text in settings or [])
    changes |= {f"data.{name}": str(path) for name, path in data_changes(photos, index).items()}
    paths.check_data(read_config(config, changes).data)
    from trainer.train.tune import SPACES, Tuning
    from trainer.train.tune import tune as run

    if preset not in SPACES:
        raise ConfigError(f"--preset {preset}: choose from {', '.join(SPACES)}")
    display = Display()
    best = run(Tuning(out, preset, trials, config, changes, jobs), display)
    display.say(f"best trial: {best.number}, validation accuracy {best.value:.1%}")
    display.say(f"fit with it: python -m trainer fit --from-study {out} --out RUN")
