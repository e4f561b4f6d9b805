"""The command `binwatch check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from binwatch.console import remark
from binwatch.counts import Suspicion
from binwatch.inventory.columns import ColumnNames
from binwatch.settings import load_settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def check(
    photos: Annotated[
        Path, typer.Argument(metavar="PHOTOS", help="Folder with photos that are named after their bins.")
    ],
    expected: Annotated[Path, typer.Option(metavar="FILE", help="Inventory file: XLSX, XLS, ODS, CSV or Parquet.")],
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="List to write: .xlsx, .csv, .parquet, .json or .html; default: wrong.xlsx. May be repeated.",
        ),
    ] = None,
    bin_column: Annotated[str | None, typer.Option(help="Name of the bin column; default: detected.")] = None,
    quantity_column: Annotated[str | None, typer.Option(help="Name of the quantity column; default: detected.")] = None,
    article_column: Annotated[
        str | None, typer.Option(help="Name of the article column, if a bin has a row for each article.")
    ] = None,
    keep_column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column to copy into the list, such as a location. May be repeated."),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option(
            min=0.0001, max=0.5, help="Share of correct bins that may be flagged; default: BINWATCH_FLAG_LEVEL (0.05)."
        ),
    ] = None,
    direction: Annotated[
        Suspicion | None, typer.Option(help="Direction to flag; default: BINWATCH_FLAG_DIRECTION (either).")
    ] = None,
    bin_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Regular expression whose group `bin` is the bin in a photo's path; default: BINWATCH_BIN_PATTERN.",
        ),
    ] = None,
    bin_list: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Table with the columns photo and bin; default: BINWATCH_BIN_LIST."),
    ] = None,
    records: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to store counts in; default: beside the list.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Model bundle; default: BINWATCH_MODEL_DIR.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a photo could not be counted.")] = False,
) -> None:
    """Count photos of bins, and list the bins that differ from the inventory, the oddest first.

    Needs no server and no settings. A repeated run counts only new and changed photos.

    binwatch check photos --expected stock.xlsx --out wrong.xlsx
    """
    from worker.check.options import CheckOptions
    from worker.check.run import run_check  # imported late, since ONNX Runtime takes a while to load

    settings = load_settings()
    overrides = {
        "model_dir": model,
        "bin_pattern": bin_pattern,
        "bin_list": bin_list,
        "flag_level": level,
        "flag_direction": direction,
    }
    settings = settings.model_copy(update={name: value for name, value in overrides.items() if value is not None})
    lists = out or [Path("wrong.xlsx")]
    folder = records or lists[0].with_name(f"{lists[0].stem}-records")
    names = ColumnNames(bin_column, quantity_column, article_column, tuple(keep_column or ()))
    result = run_check(CheckOptions(photos, expected, lists, folder, names), settings, remark)
    if strict and result.findings.failed_photo_count:
        raise typer.Exit(1)
