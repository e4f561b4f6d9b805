"""The command `profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trainer.cli.options import ConfigFile, Freeze, Index, Photos, Settings, collect_changes
from trainer.cli.paths import check_data, check_file
from trainer.config import read_config
from trainer.disk import make_folder
from trainer.distributed.environment import is_distributed


def profile(
    photos: Photos = None,
    index: Index = None,
    config: ConfigFile = None,
    settings: Settings = None,
    freeze: Freeze = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Duration of each measurement.")] = 15.0,
    prices: Annotated[
        Path | None, typer.Option(help="CSV of machines: machine, usd_per_hour and, if known, speed.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="JSON file to write the figures to.")] = None,
) -> None:
    """Measure each part of a training step, and show what limits it and what training costs on this machine.

    Trains briefly with the configuration of fit on a sample of the photos, and stores nothing.
    """
    changes = collect_changes(settings, photos=photos, index=index, freeze=freeze)
    options = read_config(config, changes)
    if not is_distributed():
        check_data(options.data)
    if prices:
        check_file(prices)
    from trainer.display import Display, silent_display
    from trainer.distributed.context import process_group
    from trainer.profile import show
    from trainer.profile.measure import profile as run
    from trainer.profile.prices import costs, read_prices

    with process_group() as context:
        price_list, notes = read_prices(prices) if prices else ([], "")
        if json:
            make_folder(json.parent)
        display = Display() if context.is_main else silent_display()
        measured = run(options, display, seconds=seconds, context=context)
        if not context.is_main:
            return
        machine_costs = costs(measured, price_list)
        show.show(measured, machine_costs, notes, Console())
        if json:
            show.write_figures(measured, machine_costs, json)
            display.say(f"written: {json}")
