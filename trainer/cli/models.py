"""The commands `models`, `publish`, `promote` and `rollback`, for the models in the bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from binwatch.errors import BundleError
from binwatch.objects import Objects
from binwatch.registry import Registry
from binwatch.settings import load_settings
from trainer.cli.options import Index, Photos
from trainer.cli.paths import data_changes


def models() -> None:
    """List the models in the bucket; the one in use is marked."""
    from trainer.display import Display
    from trainer.evaluation import tables

    registry = open_registry()
    cards = []
    for version in registry.versions():
        try:
            cards.append(registry.card(version))
        except BundleError as error:  # still list the other models
            Display().warn(f"{error}")
    if not cards:
        Display().say("no models yet; promote a bundle that export has written")
        return
    cards.sort(key=lambda card: card.created)
    console = Console()
    console.print(tables.model_table(cards, registry.current()))
    for note in tables.card_notes(cards):
        console.print(note, highlight=False, markup=False, soft_wrap=True)


def publish(
    bundle: Annotated[Path, typer.Argument(help="A bundle (folder with card.json).")],
) -> None:
    """Upload a bundle to the bucket. It is not used until it is promoted."""
    from trainer.display import Display

    card = open_registry().publish(bundle)
    Display().say(f"published: {card.version}")


def promote(
    model: Annotated[str, typer.Argument(help="A bundle (folder), which is published, or a published version.")],
    photos: Photos = None,
    index: Index = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote a model that is not better; its card says so.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare only.")] = False,
) -> None:
    """Promote a model if it beats the one in use on the candidate's test photos (paired, by bin group)."""
    changes = data_changes(photos, index)
    from trainer.display import Display
    from trainer.evaluation import tables
    from trainer.evaluation.compare import ModelComparison
    from trainer.publish.promote import promote as run

    display = Display()

    def show(comparison: ModelComparison) -> None:
        if not comparison.identical:
            Console().print(tables.comparison_table(comparison))

    initial = load_settings().model_dir
    decision = run(model, open_registry(), changes, display, force=force, dry_run=dry_run, initial=initial, show=show)
    if decision.comparison:
        display.say(decision.comparison.verdict())
    status = "would be in use" if dry_run else "in use now"
    instead = f" instead of {decision.replaced}" if decision.replaced else " as the first model, compared with none"
    display.say(f"{status}: {decision.version}{instead}{' (forced)' if decision.forced else ''}")


def rollback(
    to: Annotated[
        str | None, typer.Option("--to", help="Version; default: the one that the model in use replaced.")
    ] = None,
) -> None:
    """Promote the previous model again."""
    from trainer.display import Display
    from trainer.publish.promote import rollback as run

    Display().say(f"in use now: {run(open_registry(), to).version}")


def open_registry() -> Registry:
    """Open the registry in the bucket BINWATCH_BUCKET, below BINWATCH_MODELS_PREFIX."""
    settings = load_settings()
    return Registry(Objects(settings), settings.bucket, settings.models_prefix)
