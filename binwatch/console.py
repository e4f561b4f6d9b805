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
    """A console on standard error, for progress bars; without output if commands are to be quiet."""
    return Console(stderr=True, quiet=is_quiet())


@contextmanager
def progress_bar(done: str, total: int, *columns: ProgressColumn) -> Iterator[Callable[[int], object]]:
    """A bar of `total` items on standard error, labelled `done`; gives a function that adds finished items to it."""
    # Takes some 25 ms to import, and most commands show no bar.
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    shown = (TextColumn(done), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), *columns)
    with Progress(*shown, console=progress_console()) as progress:
        bar = progress.add_task(done, total=total)
        yield lambda items: progress.advance(bar, items)


def remark(text: object, *, beside_results: bool = False) -> None:
    """Print a remark, unless commands are to be quiet. Results, warnings and errors are not remarks.

    `beside_results`: print to standard error, since standard output has results that may be piped.
    """
    if not is_quiet():
        print(text, file=sys.stderr if beside_results else sys.stdout, flush=True)


def printable_stdout() -> TextIO:
    """Standard output that shows invalid Unicode, such as in file names, as escapes instead of raising."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout
