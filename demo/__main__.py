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
    from demo.deployment import running_deployment  # needs packages that are only with the demo
    from demo.watch import run

    console = Console()
    settings = load_settings()
    if photos is None:
        photos, metadata = SAMPLES / "bin-images", metadata or SAMPLES / "metadata"
    roll = find(photos, metadata)
    with (
        _terminated_by_exception(),
        _working_folder(console, keep) as folder,
        running_deployment(settings, folder) as deployment,
    ):
        console.print(
            f"{many(len(roll.photos), 'photo')} and {many(len(roll.metadata), 'metadata file')}", highlight=False
        )
        result = run(deployment, roll, patience, console)
        show(result, console)
        if report is not None:
            result.write(report)
        address = deployment.monitor_address()  # a monitor that never answered is an error, too
        if serve:
            token = deployment.settings.monitor_token
            console.print(f"The monitor's page: {address} (Ctrl-C ends it)", highlight=False)
            if token:
                says = f"To enter audits there, sign in with the token {token.get_secret_value()}"
                console.print(says, highlight=False, markup=False)
            console.print(_how_to_look(folder), highlight=False, markup=False, soft_wrap=True)
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
def _terminated_by_exception() -> Iterator[None]:
    """Make TERM, and HUP of a closed terminal, an exception: then parts are stopped and the folder is removed, too."""
    signals = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is not signal.SIG_IGN]

    def end(number: int, _: object) -> None:
        for one in signals:  # the second one must not interrupt what the first one has begun
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    previous = {one: signal.signal(one, end) for one in signals}
    try:
        yield
    finally:
        for one, handler in previous.items():
            signal.signal(one, handler)


@contextmanager
def _working_folder(console: Console, keep: Path | None) -> Iterator[Path]:
    """A folder for records and logs: `keep`, or one that is removed at the end.

    It stays if something went wrong, or if audits were entered and nobody was asked whether they may be removed.
    """
    folder = _new_folder(keep) if keep else Path(tempfile.mkdtemp(prefix="binwatch-demo-"))
    stays = keep is not None
    try:
        yield folder
    except (KeyboardInterrupt, SystemExit):
        stays = stays or bool(_audits(_url(folder)))
        raise
    except BaseException:
        stays = True
        raise
    finally:
        if stays:
            with suppress(OSError):  # of a terminal that was closed
                console.print(_where(folder), highlight=False, markup=False, soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / RECORDS}"


def _where(folder: Path) -> str:
    return f"records and logs are in {folder}"


def _how_to_look(folder: Path) -> str:
    command = f"BINWATCH_DATABASE_URL={shlex.quote(_url(folder))} python -m monitor status"
    return f"The database: {folder / RECORDS} (to look at it, in another terminal: {command})"


def _new_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):  # the bucket of an earlier demo is gone, and its records would not match
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
    # Not signal.pause: a signal that comes just before the call is noted, and only the next one would end it.
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)


def main() -> None:
    """Run the command line."""
    command_line.run(cli, "demo")


if __name__ == "__main__":
    main()
