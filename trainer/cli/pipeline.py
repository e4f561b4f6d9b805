"""The command `pipeline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from binwatch.settings import load_settings
from trainer.cli.paths import check_file


def pipeline(
    config: Annotated[Path, typer.Option("--config", help="TOML file: the table prepare, and the tables of fit.")],
    work: Annotated[Path, typer.Option("--work", help="Folder for photos and runs; use the same one every time.")],
    again: Annotated[bool, typer.Option("--again", help="Start a new run even if nothing has changed.")] = False,
) -> None:
    """Prepare, fit, evaluate, export, compare and promote. Continues after an interruption; suitable for cron."""
    check_file(config)
    from trainer.cli.models import open_registry
    from trainer.display import Display
    from trainer.pipeline import Pipeline, read_pipeline

    display = Display()
    outcome = Pipeline(work, read_pipeline(config), load_settings(), open_registry(), display).run(force_new=again)
    if outcome.version is None:
        display.say(outcome.reason)
    else:
        display.say(f"{outcome.version}: {'promoted' if outcome.promoted else 'not promoted'}: {outcome.reason}")
