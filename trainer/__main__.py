"""`python -m trainer`: the commands. Each imports what it needs when it runs, so that --help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from binwatch import command_line
from binwatch.bundle import Precision
from trainer import registry_commands
from trainer.cli import fit_help, paths
from trainer.cli.paths import data_changes
from trainer.config import Config, TrainConfig, assignment, read
from trainer.data.split import ALL, Split
from trainer.disk import make_folder
from trainer.display import Display, silent
from trainer.errors import ConfigError
from trainer.prepare_command import pipeline, prepare
from trainer.profile_command import profile
from trainer.registry_commands import Index, Photos
from trainer.run_files import check_checkpoint, check_study
from trainer.sagemaker.commands import app as sagemaker

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a model that counts items in bin photos.",
)

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="TOML file with tables data, model, augment, train and distil; --set and flags override it."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.OPTION=VALUE",
        help="Set one option, e.g. train.learning_rate=0.0005; repeatable. fit --help lists all.",
    ),
]


app.command()(prepare)


@app.command(epilog=fit_help.epilog())
def fit(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the run, e.g. runs/first: checkpoints, log and curves.")
    ],
    photos: Photos = None,
    index: Index = None,
    config: ConfigFile = None,
    settings: Settings = None,
    freeze: Annotated[
        str | None,
        typer.Option(help="Freeze all layers up to this one, e.g. layer3 (model.freeze). Default: train all layers."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help=f"Passes over the training photos (train.epochs). Default: {TrainConfig().epochs}."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the features of frozen layers and the answers of teachers; runs may share it."
            " Default: features in --out."
        ),
    ] = None,
    from_study: Annotated[
        Path | None,
        typer.Option("--from-study", help="Folder of a study (trainer tune --out): take its best trial's options."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the run in --out with its own configuration; --epochs may change its length."
        ),
    ] = False,
) -> None:
    """Train a model on photos and their labels; write a checkpoint after each epoch.

    Progress, warnings and figures go to standard error. An interrupted run continues with --resume.
    """
    flags = {"data.photos": photos, "data.index": index, "model.freeze": freeze}
    changes = dict(assignment(text) for text in settings or [])
    changes |= {name: value for name, value in flags.items() if value is not None}
    if resume and (config or changes or from_study):
        raise ConfigError("--resume takes the configuration from the checkpoint; only --epochs may be given with it")
    if from_study:
        check_study(from_study)
        from trainer.tune import best_changes

        changes = best_changes(from_study) | changes
    if epochs:
        changes["train.epochs"] = epochs
    if resume:
        paths.check_resumable(out)
        options = None
    else:
        options = read(config, changes)
        paths.check_run(options, out)
    _fit(out, options, epochs, cache)


def _fit(out: Path, options: Config | None, epochs: int | None, cache: Path | None) -> None:
    """Train, in this process or together with others. Without options continue the run in `out`."""
    from trainer.fit import fit as run
    from trainer.fit import saved_run
    from trainer.ranks import joined

    with joined() as ranks:
        display = Display() if ranks.lead else silent()
        if options:
            best = run(options, out, display, cache=cache, ranks=ranks)
        else:
            saved = saved_run(out, epochs, ranks)
            best = run(saved.config, out, display, saved=saved, cache=cache, ranks=ranks)
        display.say(f"best checkpoint: {best}")


@app.command()
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
    """Search for the best options (Optuna), for fit --from-study."""
    changes = dict(assignment(text) for text in settings or [])
    changes |= {f"data.{name}": str(path) for name, path in data_changes(photos, index).items()}
    paths.check_data(read(config, changes).data)
    from trainer.tune import SPACES, Tuning
    from trainer.tune import tune as run

    if preset not in SPACES:
        raise ConfigError(f"--preset {preset}: choose from {', '.join(SPACES)}")
    display = Display()
    best = run(Tuning(out, preset, trials, config, changes, jobs), display)
    display.say(f"best trial: {best.number}, validation accuracy {best.value:.1%}")
    display.say(f"fit with it: python -m trainer fit --from-study {out} --out RUN")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint (.pt) or a bundle (folder with card.json).")],
    split: Annotated[Split, typer.Option(help="Split of the data set to evaluate on.")] = Split.TEST,
    every: Annotated[
        bool, typer.Option("--every", help="All photos of the index; the model must not have been trained on any.")
    ] = False,
    challenge: Annotated[
        bool, typer.Option("--challenge", help="The ABID challenge's protocol only: photos and answers of 0 to 5.")
    ] = False,
    photos: Photos = None,
    index: Index = None,
    variant: Annotated[Precision | None, typer.Option(help="Variant of a bundle; default: its first.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="JSON file (and .html); default: evaluation/SPLIT.json beside best.pt, else with the model's name.",
        ),
    ] = None,
) -> None:
    """Measure accuracy, RMSE, MAE, within one, per class and calibration, with confidence intervals by bin group.

    Writes the figures as JSON and, beside it, an HTML page with diagrams and the worst photos.
    """
    changes = data_changes(photos, index)
    paths.check_model(model)
    from trainer import report, tables
    from trainer.evaluate import evaluate as run
    from trainer.evaluate import report_file, write

    display = Display()
    name = ALL if every else split
    file = out or report_file(model, f"{name}-challenge" if challenge else name, variant)
    make_folder(file.parent)
    found = run(model, None if every else split, changes, display, variant, challenge=challenge)
    console = Console()
    console.print(tables.summary(found.metrics, f"{found.model}: {found.name} photos, 95 % intervals by bin group"))
    console.print(tables.classes(found.main, "by label, and what was answered"))
    if limits := found.limits():
        display.warn(limits)
    write(found, file)
    page = file.with_suffix(".html")
    report.write(found, page)
    display.say(f"written: {file}, {page.name}")


@app.command()
def compare(
    model: Annotated[Path, typer.Argument(metavar="A", help="A checkpoint (.pt) or a bundle (folder with card.json).")],
    other: Annotated[Path, typer.Argument(metavar="B", help="The checkpoint or bundle to compare A with.")],
    every: Annotated[
        bool, typer.Option("--every", help="All photos of the index; neither model may have been trained on any.")
    ] = False,
    photos: Photos = None,
    index: Index = None,
) -> None:
    """Test whether A counts better than B, by more than chance, on A's test photos (paired, by bin group)."""
    changes = data_changes(photos, index)
    for path in (model, other):
        paths.check_model(path)
    from trainer import tables
    from trainer.compare import compare_files

    display = Display()
    found = compare_files(model, other, changes, display, None if every else Split.TEST)
    if not found.identical:
        Console().print(tables.comparison(found))
    typer.echo(found.verdict())


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A checkpoint (.pt).")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")],
    variants: Annotated[str, typer.Option(help="Comma-separated: fp32, fp16, int8.")] = "fp32,int8",
    max_loss: Annotated[
        float, typer.Option(min=0, max=1, help="Share of accuracy that a variant may lose before the export fails.")
    ] = 0.005,
    version: Annotated[str, typer.Option(help="The model's version; default: architecture and date.")] = "",
    note: Annotated[list[str] | None, typer.Option(help="A sentence for the card; may be repeated.")] = None,
    photos: Photos = None,
    index: Index = None,
) -> None:
    """Write a bundle: ONNX files that are checked against the checkpoint, and a card with their metrics."""
    precisions, changes = _precisions(variants), data_changes(photos, index)
    check_checkpoint(model)
    from trainer import tables
    from trainer.export.bundle import Options
    from trainer.export.bundle import export as run

    display = Display()
    options = Options(precisions, max_loss, version, tuple(note or ()))
    card = run(model, out, options, changes, display)
    Console().print(tables.summary(card.metrics, f"{card.version}, fp32: test photos, 95 % intervals by bin group"))
    display.say(f"bundle: {out} ({', '.join(card.variants)})")


app.add_typer(sagemaker, name="sagemaker")

for command in (
    pipeline,
    profile,
    registry_commands.models,
    registry_commands.publish,
    registry_commands.promote,
    registry_commands.rollback,
):
    app.command()(command)


def _precisions(text: str) -> tuple[Precision, ...]:
    try:
        return tuple(dict.fromkeys(Precision(name.strip()) for name in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"--variants {text}: {error}; choose from {', '.join(Precision)}") from None


def main() -> None:
    """Run the command line."""
    command_line.run(app, "trainer")


if __name__ == "__main__":
    main()
