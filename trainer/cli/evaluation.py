"""The commands `evaluate` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from binwatch.bundle import Precision
from trainer.cli import paths
from trainer.cli.options import AllPhotos, Index, Photos
from trainer.cli.paths import data_changes
from trainer.data.split import ALL_PHOTOS, Split
from trainer.disk import make_folder
from trainer.display import Display


def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint (.pt) or a bundle (folder with card.json).")],
    split: Annotated[Split, typer.Option(help="Split of the data set to evaluate on.")] = Split.TEST,
    all_photos: AllPhotos = False,
    challenge: Annotated[
        bool, typer.Option("--challenge", help="The ABID challenge's protocol only: photos and counts of 0 to 5.")
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
    """Measure accuracy, RMSE, MAE, within-one accuracy and calibration, with confidence intervals by bin group.

    Writes the figures, also per class, as JSON, and beside it an HTML page with diagrams and the worst photos.
    """
    changes = data_changes(photos, index)
    paths.check_model(model)
    from trainer.evaluation import report, tables
    from trainer.evaluation.evaluate import evaluate as run
    from trainer.evaluation.evaluate import report_file

    display = Display()
    name = ALL_PHOTOS if all_photos else split
    file = out or report_file(model, f"{name}-challenge" if challenge else name, variant)
    make_folder(file.parent)
    evaluation = run(model, None if all_photos else split, changes, display, variant, challenge=challenge)
    console = Console()
    title = f"{evaluation.model}: {evaluation.name} photos, 95 % intervals by bin group"
    console.print(tables.metrics_table(evaluation.metrics, title))
    console.print(tables.class_table(evaluation.main, "by label and count"))
    if limits := evaluation.limits():
        display.warn(limits)
    page = report.write(evaluation, file)
    display.say(f"written: {file}, {page.name}")


def compare(
    model: Annotated[Path, typer.Argument(metavar="A", help="A checkpoint (.pt) or a bundle (folder with card.json).")],
    other: Annotated[Path, typer.Argument(metavar="B", help="The checkpoint or bundle to compare A with.")],
    all_photos: AllPhotos = False,
    photos: Photos = None,
    index: Index = None,
) -> None:
    """Test whether A counts significantly better than B, on A's test photos (paired, by bin group)."""
    changes = data_changes(photos, index)
    for path in (model, other):
        paths.check_model(path)
    from trainer.evaluation import tables
    from trainer.evaluation.compare import compare_files

    display = Display()
    comparison = compare_files(model, other, changes, display, None if all_photos else Split.TEST)
    if not comparison.identical:
        Console().print(tables.comparison_table(comparison))
    typer.echo(comparison.verdict())
