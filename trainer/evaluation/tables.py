"""Figures as tables on a console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from binwatch.bundle import Card, Estimate, Metrics
from binwatch.counts import CLASSES
from binwatch.registry import CurrentModel

NONE = "–"

if TYPE_CHECKING:  # the list of models is shown without loading torch
    from trainer.evaluation.compare import ModelComparison


def summary(metrics: dict[str, Metrics], title: str) -> Table:
    """A column per photo set; shares in percent, errors in items, each with its 95 % interval."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in metrics:
        table.add_column(name, justify="right")
    found = metrics.values()
    table.add_row("photos", *(f"{each.photos:,}" for each in found))
    table.add_row("accuracy, %", *(_percent(each.accuracy) for each in found))
    table.add_row("majority, %", *(f"{each.majority_accuracy:.1%}".rstrip("%") for each in found))
    table.add_row("within one, %", *(_percent(each.within_one) for each in found))
    table.add_row("RMSE", *(_items(each.rmse) for each in found))
    table.add_row("RMSE of the mean", *(_items(each.rmse_of_mean) for each in found))
    table.add_row("MAE", *(_items(each.mae) for each in found))
    table.add_row("MAE of the median", *(_items(each.mae_of_median) for each in found))
    wide = [each.quantities for each in found]
    table.add_row("MAE, all quantities", *(_items(each.mae if each else None) for each in wide))
    table.add_row("RMSE, all quantities", *(_items(each.rmse if each else None) for each in wide))
    table.add_row("ECE, %", *(_percent(each.ece) for each in found))
    return table


def classes(found: Metrics, title: str) -> Table:
    """Recall and precision per class, and the confusion matrix."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    names = [*CLASSES[:-1], f">{CLASSES[-2]}"]
    for heading in ("label", "photos", "recall", "precision", *(f"→ {name}" for name in names)):
        table.add_column(heading, justify="right")
    for name, label, row in zip(names, CLASSES, found.confusion, strict=True):
        table.add_row(name, f"{sum(row):,}", *recall_and_precision(found, label), *(str(photos) for photos in row))
    return table


def recall_and_precision(found: Metrics, label: str) -> tuple[str, str]:
    """Recall and precision of a class in percent; a dash if no photo shows it, or if it was never predicted."""
    index = CLASSES.index(label)
    own = found.per_class[label]
    predicted = any(row[index] for row in found.confusion)
    return f"{own['recall']:.0%}" if own["photos"] else NONE, f"{own['precision']:.0%}" if predicted else NONE


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def _items(estimate: Estimate | None) -> str:
    if estimate is None:  # bundles of earlier versions lack some figures
        return ""
    return f"{estimate.value:.2f} ({estimate.low:.2f}–{estimate.high:.2f})"


def models(cards: list[Card], current: CurrentModel | None) -> Table:
    """A row per model; the one in use is marked. Versions are never cut, because other commands need them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "version", "created", "architecture", "variants", "accuracy on test, %"):
        table.add_column(heading, no_wrap=heading in ("version", "created"), overflow="fold")
    for card in cards:
        used = current is not None and current.version == card.version
        test = card.metrics.get("test")
        table.add_row(
            "→" if used else "",
            card.version,
            f"{card.created:%Y-%m-%d}",
            card.architecture,
            ", ".join(card.variants),
            _percent(test.accuracy) if test else "",
        )
    return table


def notes(cards: list[Card]) -> list[str]:
    """A line per note of a card, with the model's version."""
    return [f"{card.version}: {note}" for card in cards for note in card.notes]


def comparison(found: ModelComparison) -> Table:
    """Two models side by side, and the difference."""
    table = Table(title=f"on the same {found.photos}, 95 % intervals by bin group", title_justify="left")
    table.box = box.SIMPLE_HEAD
    for heading in ("", found.candidate, found.current, "difference"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    sides = [found.metrics[name] for name in (found.candidate, found.current)]
    for name, figure, show in (
        ("accuracy, %", "accuracy", _percent),
        ("within one, %", "within_one", _percent),
        ("RMSE", "rmse", _items),
        ("MAE", "mae", _items),
        ("ECE, %", "ece", _percent),
    ):
        table.add_row(name, *(show(getattr(side, figure)) for side in sides), show(found.difference[figure]))
    return table
