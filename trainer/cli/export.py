"""The commands `export`, `calibrate` and `self-check`, which write bundles and their cards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from binwatch.bundle import Bundle, Precision
from binwatch.console import remark
from binwatch.counts import CountRule
from binwatch.text import count_noun
from trainer.cli.options import AllPhotos, Index, Photos
from trainer.cli.paths import data_changes
from trainer.data.split import Split
from trainer.display import Display
from trainer.errors import ConfigError
from trainer.export.parts import CardPart
from trainer.train.run_files import check_checkpoint


def export(
    model: Annotated[Path, typer.Argument(help="A checkpoint (.pt).")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")],
    variants: Annotated[str, typer.Option(help="Comma-separated: fp32, fp16, int8.")] = "fp32,int8",
    max_loss: Annotated[
        float, typer.Option(min=0, max=1, help="Share of accuracy that a variant may lose before the export fails.")
    ] = 0.005,
    version: Annotated[str, typer.Option(help="The model's version; default: architecture and date.")] = "",
    count_rule: Annotated[
        CountRule,
        typer.Option(help="The count of a photo: its most probable class, or the median of its distribution."),
    ] = CountRule.MODE,
    note: Annotated[list[str] | None, typer.Option(help="A sentence for the card; may be repeated.")] = None,
    photos: Photos = None,
    index: Index = None,
) -> None:
    """Write a bundle: ONNX files, compared with the checkpoint, and a card with their metrics."""
    precisions, changes = _precisions(variants), data_changes(photos, index)
    check_checkpoint(model)
    from trainer.evaluation import tables
    from trainer.export.bundle import ExportOptions
    from trainer.export.bundle import export as run

    display = Display()
    options = ExportOptions(precisions, max_loss, version, tuple(note or ()), count_rule)
    card = run(model, out, options, changes, display)
    Console().print(
        tables.metrics_table(card.metrics, f"{card.version}, fp32: test photos, 95 % intervals by bin group")
    )
    display.say(f"bundle: {out} ({', '.join(card.variants)})")


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    photos: Annotated[
        Path, typer.Option("--photos", help="Folder or uncompressed tar of photos that the model was not trained on.")
    ],
    index: Index = None,
    only: Annotated[CardPart | None, typer.Option(help="Replace only this part of the card; default: both.")] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="Split of the data set; default: test for calibration, validation for reference."),
    ] = None,
    all_photos: AllPhotos = False,
) -> None:
    """Write a new calibration of p-values and a new drift reference into a bundle's card.

    Use it for a bundle without them (export writes both), or if the photos have changed permanently. The model stays
    the same.
    """
    data_changes(photos, index)
    Bundle(bundle)
    from trainer.export.card_update import update_card
    from trainer.export.conformal import describe
    from trainer.export.reference import small_reference_notes

    parts = tuple(CardPart) if only is None else (only,)
    card = update_card(bundle, photos, index, parts, Display(), split=split, all_photos=all_photos)
    if card.calibration and CardPart.CALIBRATION in parts:
        categories = describe(card.calibration, card.highest)
        remark(f"{bundle}: calibrated with {count_noun(card.calibration.photos, 'photo')} ({categories})")
    if card.reference and CardPart.REFERENCE in parts:
        bins = count_noun(card.reference.groups or 0, "bin")
        summary = f"{bundle}: reference of {count_noun(card.reference.photos, 'photo')} of {bins}."
        remark(" ".join([summary, *small_reference_notes(card.reference)]))


def self_check(bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")]) -> None:
    """Write a self-check into a bundle's card: the outputs of its files for a few generated images, on this machine.

    Workers compare their own outputs with it when they load the model. Run it on a machine that counts correctly.
    """
    Bundle(bundle)
    from trainer.export.card_update import add_self_check

    remark(f"{bundle}: self-check of {', '.join(add_self_check(bundle).variants)}")


def _precisions(text: str) -> tuple[Precision, ...]:
    try:
        return tuple(dict.fromkeys(Precision(name.strip()) for name in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"--variants {text}: {error}; choose from {', '.join(Precision)}") from None
