"""Console output while a command runs: progress bars with photos per second and remaining time, messages, warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from binwatch.console import progress_console

Item = TypeVar("Item")


class _SpeedColumn(ProgressColumn):
    """Photos per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} photos/s" if speed else "", style="cyan")


class Display:
    """Progress bars, messages and warnings on one console."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or progress_console()
        self._warnings = console or Console(stderr=True)
        self._warned: set[str] = set()

    def track(
        self, items: Iterable[Item], photos: int, what: str, size: Callable[[Item], int] = lambda _: 1
    ) -> Iterator[Item]:
        """Yield `items` and show a progress bar of `photos` in total; `size` returns the photos in an item."""
        with self._progress() as progress:
            task = progress.add_task(what, total=photos)
            for item in items:
                yield item
                progress.advance(task, size(item))

    def say(self, text: str) -> None:
        """Print a message, unless --quiet is set."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning only once: steps of a pipeline and trials of a study would repeat those about photos."""
        if text in self._warned:
            return
        self._warned.add(text)
        self._warnings.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _SpeedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )


def silent_display() -> Display:
    """Create a display without output, for parallel trials and for the processes of a run other than the main one."""
    return Display(Console(stderr=True, quiet=True))
