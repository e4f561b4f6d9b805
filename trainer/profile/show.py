"""A profile for people: tables and sentences on a console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from binwatch.text import count_noun
from trainer.data.split import Split
from trainer.disk import write_json
from trainer.profile.measure import Profile
from trainer.profile.prices import Cost
from trainer.profile.verdict import verdict


def show(found: Profile, costs: list[Cost], notes: str, console: Console) -> None:
    """Print everything."""
    parts: list[RenderableType] = [stages(found), speeds(found), durations(found)]
    for part in parts:
        console.print(part)
    for sentence in verdict(found):
        console.print(f"- {sentence}", highlight=False, markup=False, soft_wrap=True)
    if costs:
        console.print()
        console.print(prices(costs, notes))


def stages(found: Profile) -> Table:
    """The duration of each part of a step."""
    photos = found.config["train.batch_size"] * found.config["train.accumulate"] * found.config["processes"]
    awaited = ", each stage awaited" if found.machine.gpu else ""
    table = _table(
        f"a step of {count_noun(photos, 'photo')} (mean of {count_noun(found.steps, 'step')}{awaited})",
        "",
        "ms",
        "share",
    )
    total = sum(found.stages.values())
    for stage, seconds in found.stages.items():
        if seconds:  # not every run has all stages
            table.add_row(stage, f"{1000 * seconds:,.1f}", f"{seconds / total:.1%}")
    table.add_row("together", f"{1000 * total:,.1f}", "")
    return table


def speeds(found: Profile) -> Table:
    """Photos per second of each part alone, and of training as a whole."""
    table = _table("photos per second", "", "photos/s")
    table.add_row("as it trains", f"{found.training:,.1f}")
    table.add_row("network alone, photos in memory", f"{found.network:,.1f}")
    what = "photos" if found.features is None else "features"
    for readers, speed in sorted(found.readers.items()):
        own = " (as configured)" if readers == found.config["train.readers"] else ""
        threads = f"{count_noun(readers, 'thread')}{own}"
        table.add_row(f"reading {what} alone, {threads}", f"{speed:,.1f}")
    if found.features is not None:
        table.add_row("features of frozen layers, computed once", f"{found.features:,.1f}")
    table.add_row("scoring validation photos", f"{found.scoring:,.1f}")
    table.add_row("checking every photo, once", f"{found.checking:,.1f}")
    return table


def durations(found: Profile) -> Table:
    """How long a run takes on this machine, computed from the measured speeds."""
    table = _table("on this machine", "", "time")
    table.add_row("before the first epoch", _duration(found.once_seconds))
    table.add_row(f"an epoch of {found.photos[Split.TRAIN]:,} training photos", _duration(found.epoch_seconds))
    table.add_row("a million training photos, once", _duration(1e6 / found.training))
    return table


def prices(costs: list[Cost], notes: str) -> Table:
    """Costs in US dollars. For a machine without a speed in the price list, this machine's is used, and marked."""
    table = _table("US dollars", "machine", "per hour", "speed", "before", "epoch", "million photos")
    for cost in costs:
        given = f"{cost.price.speed:g} ×" if cost.price.speed else "as here?"
        dollars = (cost.before_first_epoch, cost.epoch, cost.million_photos)
        row = [f"{each:,.2f}" if each >= 1 else f"{each:.2g}" for each in dollars]
        table.add_row(escape(cost.price.machine), f"{cost.price.usd_per_hour:,.4g}", given, *row)
    caption = "Only this machine was measured: “as here?” means as fast as this one; give another speed in the table."
    table.caption = escape(f"{caption} {notes}".strip())
    table.caption_justify = "left"
    return table


def write_figures(found: Profile, costs: list[Cost], file: Path) -> None:
    """Write every figure and sentence as JSON."""
    content: dict[str, Any] = found.as_json() | {
        "verdict": verdict(found),
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
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
