"""Prints the report of a demo."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from binwatch.counts import CLASSES, Outcome, class_of
from binwatch.text import count_noun
from demo.report import DemoReport

_MAX_FAILURE_LINES = 20


def print_report(report: DemoReport, console: Console) -> None:
    """Print the agreement table, the failures and the totals."""
    if report.compared:
        console.print(_table(report))
    failures = [f"{bin_.key}: {bin_.reason}: {bin_.detail}" for bin_ in report.bins if bin_.reason]
    for line in failures[:_MAX_FAILURE_LINES]:
        console.print(f"[red]failed[/] {escape(line)}", soft_wrap=True)
    if len(failures) > _MAX_FAILURE_LINES:
        console.print(f"… and {len(failures) - _MAX_FAILURE_LINES} more; --report writes them all")
    for reason, files in report.metadata_failed.items():
        console.print(f"[yellow]metadata without a quantity[/] {files} × {reason}")
    model = report.model
    lines = [
        f"{count_noun(report.photos, 'photo')}: {report.counted} counted, {sum(report.failed.values())} failed,"
        f" {len(report.unaccounted)} unaccounted for; {report.photos_per_second} photos/s, the worker's start included",
        f"model {model['version']}, {model['variant']}, {model['provider']}",
    ]
    if report.compared:
        lines.append(
            f"{report.compared} compared: agreement {report.agreement:.1%}, within one {report.within_one:.1%},"
            f" MAE {report.mae:.2f}, RMSE {report.rmse:.2f} items"
        )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _table(report: DemoReport) -> Table:
    outcomes = Counter(
        (class_of(bin_.expected), bin_.outcome)
        for bin_ in report.bins
        if bin_.expected is not None and bin_.predicted is not None
    )
    table = Table("expected", *(str(outcome) for outcome in Outcome), "agreement", title="Counts beside expectations")
    for index, name in enumerate(CLASSES):
        cells = [outcomes[index, outcome] for outcome in Outcome]
        share = f"{outcomes[index, Outcome.EXACT] / sum(cells):.0%}" if sum(cells) else "–"
        table.add_row(name, *map(str, cells), share)
    return table
