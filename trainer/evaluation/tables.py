"""Metrics and models as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from binwatch.bundle import Card, Estimate, Metrics
from binwatch.counts import CLASSES
from binwatch.registry import CurrentModel

UNDEFINED = "–"
"""Shown for a recall or precision that is undefined."""

if TYPE_CHECKING:  # so that listing models does not load torch
    from trainer.evaluation.compare import ModelComparison


def metrics_table(metrics: dict[str, Metrics], title: str) -> Table:
    """Show one column per photo set: shares in percent, errors in items, with their 95 % intervals."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in metrics:
        table.add_column(name, justify="right")
    columns = metrics.values()
    table.add_row("photos", *(f"{each.photos:,}" for each in columns))
    table.add_row("accuracy, %", *(_format_percent(each.accuracy) for each in columns))
    table.add_row("majority, %", *(f"{each.majority_accuracy:.1%}".rstrip("%") for each in columns))
    table.add_row("within one, %", *(_format_percent(each.within_one) for each in columns))
    table.add_row("RMSE", *(_format_items(each.rmse) for each in columns))
    table.add_row("RMSE of the mean", *(_format_items(each.rmse_of_mean) for each in columns))
    table.add_row("MAE", *(_format_items(each.mae) for each in columns))
    table.add_row("MAE of the median", *(_format_items(each.mae_of_median) for each in columns))
    errors = [each.quantities for each in columns]
    table.add_row("MAE, all quantities", *(_format_items(error.mae if error else None) for error in errors))
    table.add_row("RMSE, all quantities", *(_format_items(error.rmse if error else None) for error in errors))
    table.add_row("ECE, %", *(_format_percent(each.ece) for each in columns))
    return table


def class_table(metrics: Metrics, title: str) -> Table:
    """Show recall and precision per class, and the confusion matrix."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    names = [*CLASSES[:-1], f">{CLASSES[-2]}"]
    for heading in ("label", "photos", "recall", "precision", *(f"→ {name}" for name in names)):
        table.add_column(heading, justify="right")
    for name, label, row in zip(names, CLASSES, metrics.confusion, strict=True):
        table.add_row(name, f"{sum(row):,}", *recall_and_precision(metrics, label), *(str(photos) for photos in row))
    return table


def recall_and_precision(metrics: Metrics, label: str) -> tuple[str, str]:
    """Format recall (a dash if no photo shows the class) and precision (a dash if it is never predicted) in percent."""
    index = CLASSES.index(label)
    scores = metrics.per_class[label]
    predicted = any(row[index] for row in metrics.confusion)
    recall = f"{scores['recall']:.0%}" if scores["photos"] else UNDEFINED
    return recall, f"{scores['precision']:.0%}" if predicted else UNDEFINED


def _format_percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def _format_items(estimate: Estimate | None) -> str:
    if estimate is None:  # not measured on this photo set, or by an earlier version
        return ""
    return f"{estimate.value:.2f} ({estimate.low:.2f}–{estimate.high:.2f})"


def model_table(cards: list[Card], current: CurrentModel | None) -> Table:
    """Show one row per model; the current one is marked. Versions are never cut short: other commands need them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "version", "created", "architecture", "variants", "accuracy on test, %"):
        table.add_column(heading, no_wrap=heading in ("version", "created"), overflow="fold")
    for card in cards:
        is_current = current is not None and current.version == card.version
        test = card.metrics.get("test")
        table.add_row(
            "→" if is_current else "",
            card.version,
            f"{card.created:%Y-%m-%d}",
            card.architecture,
            ", ".join(card.variants),
            _format_percent(test.accuracy) if test else "",
        )
    return table


def card_notes(cards: list[Card]) -> list[str]:
    """Return one line per note of a card, with the model's version."""
    return [f"{card.version}: {note}" for card in cards for note in card.notes]


def comparison_table(comparison: ModelComparison) -> Table:
    """Show two models side by side, and their difference."""
    table = Table(title=f"on the same {comparison.photos}, 95 % intervals by bin group", title_justify="left")
    table.box = box.SIMPLE_HEAD
    for heading in ("", comparison.candidate, comparison.current, "difference"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    sides = [comparison.metrics[name] for name in (comparison.candidate, comparison.current)]
    for label, metric, format_estimate in (
        ("accuracy, %", "accuracy", _format_percent),
        ("within one, %", "within_one", _format_percent),
        ("RMSE", "rmse", _format_items),
        ("MAE", "mae", _format_items),
        ("ECE, %", "ece", _format_percent),
    ):
        estimates = [*(getattr(side, metric) for side in sides), comparison.difference[metric]]
        table.add_row(label, *map(format_estimate, estimates))
    return table
