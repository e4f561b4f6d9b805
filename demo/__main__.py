"""The command `python -m demo`: uploads photos, has them counted, and shows the result."""

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
from sqlalchemy import func, select

from binwatch import command_line
from binwatch.errors import BinwatchError
from binwatch.records.engine import connect
from binwatch.records.tables import Audit
from binwatch.settings import Settings, load_settings
from binwatch.text import many
from demo.camera import find
from demo.show import show

SAMPLES = Path(__file__).parent.parent / "samples"

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def demo(
    photos: Annotated[Path | None, typer.Option(help="Folder with photos; default: the sample photos.")] = None,
    metadata: Annotated[Path | None, typer.Option(help="Folder with the metadata JSON files of these photos.")] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file to write the result to.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Keep the monitor running until Ctrl-C.")] = False,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Store records and logs in this folder and leave them there.")
    ] = None,
    patience: Annotated[float, typer.Option(help="Give up after this many seconds without a new record.")] = 120.0,
) -> None:
    """Upload photos to a bucket as a camera would, have them counted and compared, and show the result.

    S3, SQS, a Celery worker and the monitor run on this machine while the demo runs. Exits with 1 if photos are
    unaccounted for, and names them.
    """
    from demo.deployment import running_deployment  # needs packages of the extra `demo`
    from demo.watch import run

    console = Console()
    settings = load_settings()
    if photos is None:
        photos, metadata = SAMPLES / "bin-images", metadata or SAMPLES / "metadata"
    roll = find(photos, metadata)
    with _working_folder(console, keep) as folder, running_deployment(settings, folder) as deployment:
        console.print(
            f"{many(len(roll.photos), 'photo')} and {many(len(roll.metadata), 'metadata file')}", highlight=False
        )
        result = run(deployment, roll, patience, console)
        show(result, console)
        if report is not None:
            result.write(report)
        address = deployment.monitor_address()  # raises if the monitor never answered
        if serve:
            token = deployment.settings.monitor_token
            console.print(f"The monitor's page: {address} (Ctrl-C ends it)", highlight=False)
            if token:
                says = f"To enter audits there, sign in with the token {token.get_secret_value()}"
                console.print(says, highlight=False, markup=False)
            _wait_for_interrupt()
            if not keep and (audits := _audits(deployment.settings)):
                console.print(
                    _would_be_lost(audits, deployment.settings), highlight=False, markup=False, soft_wrap=True
                )
                _wait_for_interrupt()
        if result.unaccounted:
            names = "\n  ".join(result.unaccounted)
            raise BinwatchError(f"unaccounted for, {len(result.unaccounted)}:\n  {names}")


@contextmanager
def _working_folder(console: Console, keep: Path | None) -> Iterator[Path]:
    """A folder for records and logs: `keep`, or one that is removed at the end unless something went wrong."""
    folder = _new_folder(keep) if keep else Path(tempfile.mkdtemp(prefix="binwatch-demo-"))
    kept = f"records and logs are in {folder}"
    try:
        yield folder
    except BinwatchError:
        console.print(kept, highlight=False, markup=False, soft_wrap=True)
        raise
    if keep:
        console.print(kept, highlight=False, markup=False, soft_wrap=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _new_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):  # the records of an earlier demo would not match the new bucket
            raise BinwatchError(f"{folder}: is not empty; name another folder with --keep")
    except OSError as error:
        raise BinwatchError(f"{folder}: cannot be used ({error.strerror}); name another folder with --keep") from error
    return folder.resolve()


def _audits(settings: Settings) -> int:
    with connect(settings.database_url.get_secret_value()).connect() as connection:
        return connection.execute(select(func.count()).select_from(Audit)).scalar_one()


def _would_be_lost(audits: int, settings: Settings) -> str:
    entered = many(audits, "audit that was entered is", "audits that were entered are")
    url = settings.database_url.get_secret_value()
    export = f"BINWATCH_DATABASE_URL={url} python -m monitor audits export audits.csv"
    return f"{entered} removed on the next Ctrl-C; to save before, in another terminal: {export}"


def _wait_for_interrupt() -> None:
    # Not signal.pause, which misses a signal that arrives just before the call.
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)


def main() -> None:
    """Run the command line."""
    command_line.run(cli, "demo")


if __name__ == "__main__":
    main()
