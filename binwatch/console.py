"""What commands print beside their results: progress bars and remarks. `--quiet` leaves both out."""

from __future__ import annotations

from rich.console import Console

from binwatch.settings import is_quiet


def progress_console() -> Console:
    """Standard error, for progress bars and remarks; without output if commands are to be quiet."""
    return Console(stderr=True, quiet=is_quiet())


def remark(text: object) -> None:
    """Print what was done, unless commands are to be quiet. Results, warnings and errors are no remarks."""
    if not is_quiet():
        print(text, flush=True)
