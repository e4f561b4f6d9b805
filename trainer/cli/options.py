"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.config import parse_assignment

Photos = Annotated[
    Path | None,
    typer.Option("--photos", help="Folder, with its subfolders, or uncompressed tar of photos (data.photos)."),
]
Index = Annotated[
    Path | None,
    typer.Option(
        "--index",
        help="CSV with a row per photo (columns key, label, bin_group), or a file_list.json (data.index)."
        " Default: the photos lie in folders named after quantities.",
    ),
]
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
Freeze = Annotated[
    str | None,
    typer.Option(help="Freeze all layers up to this one, e.g. layer3 (model.freeze). Default: none."),
]
AllPhotos = Annotated[
    bool, typer.Option("--every", help="All photos of the index; no model may have been trained on any.")
]


def collect_changes(
    settings: list[str] | None, *, photos: Path | None, index: Path | None, freeze: str | None
) -> dict[str, Any]:
    """Collect the changes of the configuration from flags and --set. A flag overrides --set."""
    flags = {"data.photos": photos, "data.index": index, "model.freeze": freeze}
    by_flag = {name: value for name, value in flags.items() if value is not None}
    return dict(parse_assignment(text) for text in settings or []) | by_flag
