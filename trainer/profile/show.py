"""Prints a profile as tables and sentences, and writes it as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from binwatch.text import count_noun
from trainer.data.split import Split
from trainer.disk import write_json
from trainer.profile.measure import Profile
from trainer.profile.prices import Cost
from trainer.profile.verdict import verdict


def show(profile: Profile, costs: list[Cost], notes: str, console: Console) -> None:
    """Print all tables and sentences."""
    for table in (stages(profile), speeds(profile), durations(profile)):
        console.print(table)
    for sentence in verdict(profile):
        console.print(f"- {sentence}", highlight=False, markup=False, soft_wrap=True)
    if costs:
        console.print()
        console.print(prices(costs, notes))


def stages(profile: Profile) -> Table:
    """Table of the duration of each stage of a step."""
    photos = profile.config["train.batch_size"] * profile.config["train.accumulate"] * profile.config["processes"]
    awaited = ", each stage awaited" if profile.machine.gpu else ""
    table = _table(
        f"a step of {count_noun(photos, 'photo')} (mean of {count_noun(profile.steps, 'step')}{awaited})",
        "",
        "ms",
        "share",
    )
    total = sum(profile.stages.values())
    for stage, seconds in profile.stages.items():
        if seconds:  # not every run has all stages
            table.add_row(stage, f"{1000 * seconds:,.1f}", f"{seconds / total:.1%}")
    table.add_row("together", f"{1000 * total:,.1f}", "")
    return table


def speeds(profile: Profile) -> Table:
    """Table of the photos per second of each part alone, and of training as a whole."""
    table = _table("photos per second", "", "photos/s")
    table.add_row("as it trains", f"{profile.training:,.1f}")
    table.add_row("network alone, photos in memory", f"{profile.network:,.1f}")
    what = "photos" if profile.features is None else "features"
    for readers, speed in sorted(profile.readers.items()):
        configured = " (as configured)" if readers == profile.config["train.readers"] else ""
        table.add_row(f"reading {what} alone, {count_noun(readers, 'thread')}{configured}", f"{speed:,.1f}")
    if profile.features is not None:
        table.add_row("features of frozen layers, computed once", f"{profile.features:,.1f}")
    table.add_row("scoring validation photos", f"{profile.scoring:,.1f}")
    table.add_row("checking every photo, once", f"{profile.checking:,.1f}")
    return table


def durations(profile: Profile) -> Table:
    """Table of the durations of a run on this machine, computed from the measured speeds."""
    table = _table("on this machine", "", "time")
    table.add_row("before the first epoch", _duration(profile.once_seconds))
    table.add_row(f"an epoch of {profile.photos[Split.TRAIN]:,} training photos", _duration(profile.epoch_seconds))
    table.add_row("a million training photos, once", _duration(1e6 / profile.training))
    return table


def prices(costs: list[Cost], notes: str) -> Table:
    """Table of the costs in US dollars.

    For a machine without a speed in the price list, the measured machine's speed is used, and the row is marked.
    """
    table = _table("US dollars", "machine", "per hour", "speed", "before", "epoch", "million photos")
    for cost in costs:
        speed = f"{cost.price.speed:g} ×" if cost.price.speed else "as here?"
        dollars = (cost.before_first_epoch, cost.epoch, cost.million_photos)
        cells = [f"{each:,.2f}" if each >= 1 else f"{each:.2g}" for each in dollars]
        table.add_row(escape(cost.price.machine), f"{cost.price.usd_per_hour:,.4g}", speed, *cells)
    caption = "Only this machine was measured: “as here?” means as fast as this one; give another speed in the table."
    table.caption = escape(f"{caption} {notes}".strip())
    table.caption_justify = "left"
    return table


def write_figures(profile: Profile, costs: list[Cost], file: Path) -> None:
    """Write all figures and sentences as JSON."""
    content: dict[str, Any] = profile.as_json() | {
        "verdict": verdict(profile),
        "usd": [
            {
                "machine": cost.price.machine,
                "usd_per_hour": cost.price.usd_per_hour,
                "speed": cost.price.speed,
                "before_first_epoch": cost.before_first_epoch,
                "epoch": cost.epoch,
                "million_photos": cost.million_photos,
            }
            for cost in costs
        ],
    }
    write_json(file, content)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="right" if column else "left")
    return table


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
