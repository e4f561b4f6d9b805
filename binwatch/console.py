"""Output of commands besides their results: progress bars and remarks. `--quiet` suppresses both."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from binwatch.settings import is_quiet

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


def progress_console() -> Console:
    """Return a console on standard error for progress bars; it prints nothing in quiet mode."""
    return Console(stderr=True, quiet=is_quiet())


@contextmanager
def progress_bar(label: str, total: int, *columns: ProgressColumn) -> Iterator[Callable[[int], object]]:
    """Show a progress bar of `total` items on standard error. Yields a function that advances it by a number of items.

    `columns` are appended to the usual columns.
    """
    # Imported here, since the import takes about 25 ms and most commands show no progress bar.
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    all_columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), *columns)
    with Progress(*all_columns, console=progress_console()) as progress:
        task = progress.add_task(label, total=total)
        yield lambda items: progress.advance(task, items)


def remark(text: object, *, to_stderr: bool = False) -> None:
    """Print a remark, except in quiet mode. Results, warnings and errors are not remarks.

    `to_stderr`: for commands whose standard output has results that may be piped.
    """
    if not is_quiet():
        print(text, file=sys.stderr if to_stderr else sys.stdout, flush=True)


def printable_stdout() -> TextIO:
    """Make standard output escape invalid Unicode, as in some file names, instead of raising, and return it."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout
