"""The summary as a table in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from binwatch.text import pluralize
from monitor import formatting
from monitor.summary import Done, Figures, Summary

_COLUMNS = ("Expected", "Compared", "Under", "Exact", "Over", "Agreement", "Within 1", "MAE")


def render(summary: Summary) -> RenderableType:
    """Render the output of `python -m monitor status`."""
    if summary.model is None:
        return Text(
            "Nothing has been recorded yet: upload photos to the bucket, or check whether a worker is running.\n"
            f"{_done('Expected quantities', 'read', summary.expected_quantities)}"
        )
    return Group(
        _table(summary),
        Text(_agreement(summary)),
        Text(_audited_accuracy(summary)),
        Text(_done("Photos", "counted", summary.photos)),
        Text(_done("Expected quantities", "read", summary.expected_quantities)),
        Text(
            f"Bins: {formatting.number(summary.bins.photo_without_quantity)} with a photo but no expected quantity,"
            f" {formatting.number(summary.bins.quantity_without_photo)} with an expected quantity but no photo"
        ),
    )


def _table(summary: Summary) -> Table:
    # Text, not str: a version in brackets would be taken for markup.
    table = Table(title=Text(f"Counts against expected quantities, model {summary.model}"), show_footer=True)
    footers = ("all", *_cells(summary.agreement.total))
    for name, footer in zip(_COLUMNS, footers, strict=True):
        table.add_column(name, footer=footer, justify="right")
    for row in summary.agreement.by_expected:
        table.add_row(row.expected, *_cells(row))
    return table


def _cells(figures: Figures) -> tuple[str, ...]:
    n = figures.comparisons
    return (
        *(formatting.number(value) for value in (n, figures.under, figures.exact, figures.over)),
        formatting.share(figures.agreement, n),
        formatting.share(figures.within_one, n),
        formatting.items(figures.mae),
    )


def _agreement(summary: Summary) -> str:
    total, interval = summary.agreement.total, summary.agreement.interval
    if interval is None:
        return "Nothing has been compared yet: no photo has an expected quantity."
    n = total.comparisons
    return (
        f"Agreement {formatting.share(total.agreement, n)} (95 % interval {formatting.share(interval.low, n)} to"
        f" {formatting.share(interval.high, n)}), RMSE {formatting.items(total.rmse)}"
    )


def _audited_accuracy(summary: Summary) -> str:
    audits = summary.audits
    n = audits.counts.comparisons
    sighted = summary.sighted_audits.counts
    sighted_note = (
        f"; {formatting.many(sighted.comparisons, 'more audit')}, made with the numbers in sight,"
        f" {pluralize(sighted.comparisons, 'is', 'are')} not in it"
        if sighted.comparisons
        else ""
    )
    if audits.interval is None:
        return f"Audited accuracy: nobody has audited a bin blind yet (docs/auditing.md){sighted_note}"
    return (
        f"Audited accuracy {formatting.share(audits.counts.agreement, n)} (95 % interval"
        f" {formatting.share(audits.interval.low, n)} to {formatting.share(audits.interval.high, n)},"
        f" {formatting.many(n, 'audit')});"
        f" of the inventory {formatting.share(audits.inventory.agreement, audits.inventory.comparisons)}{sighted_note}"
    )


def _done(subject: str, verb: str, done: Done) -> str:
    failed = "".join(f", {formatting.number(count)} {formatting.reason(name)}" for name, count in done.failed.items())
    return f"{subject}: {formatting.number(done.done)} {verb}{failed}"
