"""Prints tables on standard output: formatted on a terminal, as CSV in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from binwatch.documents import Sheet, plain_rows
from binwatch.safe_csv import SafeCsvWriter
from binwatch.text import escape_unprintable


def print_csv(sheet: Sheet, out: TextIO) -> None:
    """Print all columns as CSV, without the byte order mark that spreadsheets need and other programs do not expect."""
    writer = SafeCsvWriter(out, line_end="\n")
    writer.writerow(sheet.columns)
    writer.writerows(plain_rows(sheet))


def print_table(sheet: Sheet, columns: Sequence[str], out: TextIO) -> None:
    """Print the named columns in the terminal's width. Long cells are wrapped, not truncated."""
    table = Table()
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    positions = [list(sheet.columns).index(name) for name in columns]
    for row in plain_rows(sheet):
        cells = (row[position] for position in positions)
        table.add_row(*(Text("" if cell is None else escape_unprintable(str(cell))) for cell in cells))
    Console(file=out).print(table)
