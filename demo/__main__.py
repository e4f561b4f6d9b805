"""The main job on one machine: `python -m demo --help`."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from binwatch import command_line
from binwatch.errors import BinwatchError
from binwatch.settings import load_settings
from demo.camera import find
from demo.show import show

SAMPLES = Path(__file__).parent.parent / "samples"

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def demo(
    photos: Annotated[Path | None, typer.Option(help="Folder with photos; default: the sample photos.")] = None,
    metadata: Annotated[Path | None, typer.Option(help="Folder with the metadata JSON files of these photos.")] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file to write the result to.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the monitor running until Ctrl-C.")] = False,
    patience: Annotated[float, typer.Option(help="Give up after this many seconds without a new record.")] = 120.0,
) -> None:
    """Upload photos to a bucket as a camera would, have them counted and compared, and show the result.

    S3, SQS, a Celery worker and the monitor run on this machine while the demo runs. Exits with 1 if photos are
    unaccounted for, and names them.
    """
    from demo.house import open_house  # needs packages that are only with the demo
    from demo.watch import run

    console = Console()
    settings = load_settings()
    if photos is None:
        photos, metadata = SAMPLES / "bin-images", metadata or SAMPLES / "metadata"
    roll = find(photos, metadata)
    with _working_folder(console) as folder, open_house(settings, folder) as house:
        console.print(f"{len(roll.photos)} photos and {len(roll.metadata)} metadata files", highlight=False)
        result = run(house, roll, patience, console)
        show(result, console)
        if report is not None:
            result.write(report)
        address = house.monitor_address()  # a monitor that never answered is an error, too
        if keep:
            token = house.settings.monitor_token
            console.print(f"The monitor's page: {address} (Ctrl-C ends it)", highlight=False)
            if token:
                says = f"To enter audits there, sign in with the token {token.get_secret_value()}"
                console.print(says, highlight=False, markup=False)
            _wait_for_interrupt()
        if result.unaccounted:
            names = "\n  ".join(result.unaccounted)
            raise BinwatchError(f"unaccounted for, {len(result.unaccounted)}:\n  {names}")


@contextmanager
def _working_folder(console: Console) -> Iterator[Path]:
    """A folder for records and logs; removed at the end unless something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="binwatch-demo-"))
    try:
        yield folder
    except BinwatchError:
        console.print(f"records and logs are in {folder}", highlight=False)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for_interrupt() -> None:
    # Not signal.pause: a signal that comes just before the call is noted, and only the next one would end it.
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)


def main() -> None:
    """Run the command line."""
    command_line.run(cli, "demo")


if __name__ == "__main__":
    main()
