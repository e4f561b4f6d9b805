"""The command `python -m demo`: uploads photos, has them counted, and shows the result."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from binwatch import command_line
from binwatch.errors import BinwatchError
from binwatch.settings import Settings, load_settings
from binwatch.text import count_noun
from demo.camera import find_uploads
from demo.folder import count_audits, database_of, export_advice, print_plain, status_advice, working_folder
from demo.show import print_report

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
    from demo.watch import upload_and_wait

    console = Console()
    settings = load_settings()
    if photos is None:
        photos, metadata = SAMPLES / "bin-images", metadata or SAMPLES / "metadata"
    plan = find_uploads(photos, metadata)
    with (
        _terminated_by_exception(),
        working_folder(console, keep, settings.bucket) as folder,
        running_deployment(settings, folder) as deployment,
    ):
        console.print(
            f"{count_noun(len(plan.photos), 'photo')} and {count_noun(len(plan.metadata), 'metadata file')}",
            highlight=False,
        )
        result = upload_and_wait(deployment, plan, patience, console)
        print_report(result, console)
        if report is not None:
            result.write(report)
        address = deployment.monitor_address()  # raises if the monitor never became ready
        if serve:
            _serve(console, address, deployment.settings, folder, ask=keep is None)
        if result.unaccounted:
            names = "\n  ".join(result.unaccounted)
            raise BinwatchError(f"unaccounted for, {len(result.unaccounted)}:\n  {names}")
        if not serve and keep is None:
            print_plain(
                console, "The database was temporary: --keep DIR keeps it, --serve shows it on the monitor's pages."
            )


def _serve(console: Console, address: str, settings: Settings, folder: Path, *, ask: bool) -> None:
    """Serve the monitor until Ctrl-C; with `ask`, until the second Ctrl-C if it would remove entered audits."""
    print_plain(console, f"The monitor's page: {address} (Ctrl-C ends it)")
    if token := settings.monitor_token:
        print_plain(console, f"To enter audits there, sign in with the token {token.get_secret_value()}")
    print_plain(console, f"The database: {database_of(folder)}", status_advice(folder, settings.bucket))
    _wait_for_interrupt()
    if ask and (audits := count_audits(folder)):
        entered = count_noun(audits, "audit that was entered is", "audits that were entered are")
        print_plain(console, f"{entered} removed on the next Ctrl-C; {export_advice(folder, settings.bucket)}")
        _wait_for_interrupt()


@contextmanager
def _terminated_by_exception() -> Iterator[None]:
    """Turn SIGTERM, and the SIGHUP of a closed terminal, into SystemExit, so that the demo cleans up after itself."""
    signals = [sig for sig in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(sig) is not signal.SIG_IGN]

    def exit_by_signal(number: int, _: object) -> None:
        for sig in signals:  # a second signal must not interrupt the cleanup
            signal.signal(sig, signal.SIG_IGN)
        sys.exit(128 + number)

    previous = {sig: signal.signal(sig, exit_by_signal) for sig in signals}
    try:
        yield
    finally:
        for sig, handler in previous.items():
            signal.signal(sig, handler)


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
