"""Figures as tables on a console."""

from __future__ import annotations

from rich import box
from rich.table import Table

from binwatch.bundle import Estimate, Metrics
from binwatch.counts import CLASSES


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
    table.add_row("MAE", *(_items(each.mae) for each in found))
    table.add_row("ECE, %", *(_percent(each.ece) for each in found))
    return table


def classes(found: Metrics, title: str) -> Table:
    """Recall and precision per class, and the confusion matrix."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    names = [*CLASSES[:-1], f">{CLASSES[-2]}"]
    for heading in ("label", "photos", "recall", "precision", *(f"→ {name}" for name in names)):
        table.add_column(heading, justify="right")
    for name, label, row in zip(names, CLASSES, found.confusion, strict=True):
        own = found.per_class[label]
        shares = (f"{own['photos']:,.0f}", f"{own['recall']:.0%}", f"{own['precision']:.0%}")
        table.add_row(name, *shares, *(str(photos) for photos in row))
    return table


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def _items(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f}–{estimate.high:.2f})"
