"""Command line of the worker: `python -m worker --help`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from binwatch import command_line
from binwatch.bundle import Bundle
from binwatch.console import printable_stdout, progress_console, remark
from binwatch.counts import CLASSES
from binwatch.errors import BinwatchError
from binwatch.settings import NightlyBackend, Settings, load_settings
from binwatch.text import count_noun, escape_unprintable
from worker.rendering import Format, ResultLine, write_results
from worker.skipped import OBJECT_NOUNS, SkippedTally

if TYPE_CHECKING:
    from worker.brokers.base import DeadLetter, DeadLetterQueue

_MAX_BODY_CHARS = 160  # of a dead letter in the list

cli = typer.Typer(
    help="Count items in photos of storage bins.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.command()
def run() -> None:
    """Receive event messages and count photos until stopped (TERM finishes the tasks in flight)."""
    from worker.app import make_app, make_worker
    from worker.logs import configure

    settings = load_settings()
    configure(settings.log_format, settings.log_level)
    worker = make_worker(make_app(settings), settings)
    worker.start()
    raise typer.Exit(worker.exitcode or 0)


@cli.command()
def migrate() -> None:
    """Upgrade the schema of the records, and print the revisions before and after."""
    from worker.provisioning import migrate_records

    remark(migrate_records(load_settings()))


@cli.command()
def setup(
    bucket: Annotated[bool, typer.Option("--bucket", help="Also create the bucket if it does not exist.")] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Have the bucket send its events to the event queue (SQS only).")
    ] = False,
) -> None:
    """Create the event queue and the task queue on SQS or RabbitMQ, each with its dead-letter queue."""
    from worker.provisioning import enable_event_notifications, make_bucket, make_queues

    settings = load_settings()
    remark(make_queues(settings))
    if bucket:
        remark(make_bucket(settings))
    if events:
        remark(enable_event_notifications(settings))


@cli.command()
def put(
    folders: Annotated[list[Path], typer.Argument(help="Folders with photos and metadata files.", metavar="DIR…")],
) -> None:
    """Upload photos and metadata files to the bucket for workers to count. Keys begin with the folder's name."""
    from worker.uploading import put_folders

    remark(put_folders(load_settings(), folders))


@cli.command()
def count(
    places: Annotated[list[str], typer.Argument(help="Photos, folders or s3://bucket/prefix.", metavar="PATH…")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array; not with --csv.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV; not with --json.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="Model bundle; default: the promoted one for BINWATCH_BUCKET, else BINWATCH_MODEL_DIR."),
    ] = None,
) -> None:
    """Count photos now, without a queue, and print the counts. Exits with 1 if no photo could be counted."""
    if as_json and as_csv:
        raise BinwatchError("--json and --csv exclude each other; choose one")
    output_format = Format.JSON if as_json else Format.CSV if as_csv else Format.TABLE
    settings = load_settings()
    bundle = Bundle(model) if model else _default_bundle(places, settings)
    skipped_files = SkippedTally()
    counted, failed = write_results(_count(places, bundle, settings, skipped_files), output_format, printable_stdout())
    progress_console().print(f"counted by {bundle.card.version}", highlight=False, markup=False, soft_wrap=True)
    if skipped_files:
        print(f"skipped: {skipped_files}", file=sys.stderr)
    if failed:
        Console(stderr=True).print(f"{counted:,} counted, {failed:,} failed")
    raise typer.Exit(0 if counted else 1)


@cli.command()
def serve() -> None:
    """Count photos sent over HTTP, as a SageMaker container does, until stopped."""
    from worker.logs import configure
    from worker.sagemaker.serving.server import serve as serve_photos

    settings = load_settings()
    configure(settings.log_format, settings.log_level, sys.stdout)  # SageMaker collects log lines from there
    serve_photos(settings)


@cli.command()
def beat() -> None:
    """Run the scheduler of reconcile and the nightly run. Run exactly one, for any number of workers."""
    from worker.app import make_beat
    from worker.logs import configure

    settings = load_settings()
    configure(settings.log_format, settings.log_level)
    make_beat(settings).run()


@cli.command()
def backfill(
    place: Annotated[
        str | None,
        typer.Argument(help="Objects to process; default: all of BINWATCH_BUCKET.", metavar="[s3://BUCKET/PREFIX]"),
    ] = None,
    patience: Annotated[float, typer.Option(help="Give up after this many seconds without a new record.")] = 300.0,
) -> None:
    """Have the workers process all objects of a bucket that have no record. Resumable.

    A bucket other than BINWATCH_BUCKET is processed this once: event messages and reconcile cover BINWATCH_BUCKET only.
    """
    from worker.backfill import backfill_with_progress

    settings = load_settings()
    place = place or f"s3://{settings.bucket}/"
    if not place.startswith("s3://"):
        raise BinwatchError(f"{place}: not of the form s3://bucket/prefix; leave it out for all of BINWATCH_BUCKET")
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    progress = backfill_with_progress(settings, bucket, prefix, patience)
    recorded = f"{progress.recorded:,} recorded now{progress.failed_suffix()}, {progress.recorded_before:,} before"
    remark(f"{place}: {count_noun(progress.listed, *OBJECT_NOUNS)}: {recorded}")
    if progress.skipped:
        print(f"skipped: {progress.skipped}", file=printable_stdout())


@cli.command()
def reconcile(
    refused: Annotated[
        bool, typer.Option("--refused", help="Also retry at once all objects that could not be fetched.")
    ] = False,
) -> None:
    """Send the photos and metadata files of the bucket that have no record to the workers, once."""
    from binwatch.objects import Objects
    from worker.app import open_publisher
    from worker.counting import open_records
    from worker.reconcile import send_unrecorded

    printable_stdout()  # for keys that are not valid Unicode
    settings = load_settings()
    objects, records, publisher = Objects(settings), open_records(settings), open_publisher(settings)
    remark(send_unrecorded(objects, records, settings, publisher, retry_all=refused))


@cli.command()
def skipped(prefix: Annotated[str, typer.Argument(help="List only keys with this prefix.")] = "") -> None:
    """List skipped objects (those whose keys name neither a photo nor a metadata file), each with the reason."""
    from binwatch.objects import Objects
    from worker.reconcile import skipped_keys
    from worker.skipped import SKIP_REASONS

    settings, out, n_skipped = load_settings(), printable_stdout(), 0
    for reason, key in skipped_keys(Objects(settings).list(settings.bucket, prefix), settings):
        n_skipped += 1
        print(f"{escape_unprintable(key)}: {SKIP_REASONS[reason]}", file=out)
    summary = count_noun(n_skipped, "skipped object") if n_skipped else "no skipped objects"
    remark(f"{summary} in s3://{settings.bucket}/{escape_unprintable(prefix)}", to_stderr=True)


@cli.command()
def nightly(
    backend: Annotated[NightlyBackend | None, typer.Option(help="Default: BINWATCH_NIGHTLY_BACKEND.")] = None,
    prefix: Annotated[str, typer.Option(help="Count only photos whose keys have this prefix.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Also count photos that have a record.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the number of photos and the cost; start nothing.")
    ] = False,
) -> None:
    """Count all photos that the model in use has not counted. Resumable."""
    from worker.nightly.commands import nightly as run_nightly

    settings = load_settings()
    run_nightly(settings, backend or settings.nightly_backend, prefix, again=again, dry_run=dry_run)


@cli.command("dead-letters")
def dead_letters(
    ids: Annotated[
        list[str] | None, typer.Argument(help="With --delete: ids of the messages to delete.", metavar="[ID]…")
    ] = None,
    redrive: Annotated[
        bool, typer.Option("--redrive", help="Move all messages back to the queue they came from.")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete messages, and print them in full.")] = False,
    delete_all: Annotated[bool, typer.Option("--all", help="With --delete: all messages.")] = False,
) -> None:
    """List dead letters with id and reason; redrive them once the cause is fixed, or delete some."""
    from worker.brokers.choice import choose_queues

    selected_ids = frozenset(ids or ())
    if delete and redrive:
        raise BinwatchError("--redrive and --delete exclude each other; choose one")
    if delete and bool(selected_ids) == delete_all:
        raise BinwatchError("--delete is permanent: pass ids of the list, or --all")
    if (selected_ids or delete_all) and not delete:
        raise BinwatchError("ids and --all need --delete")
    queues = choose_queues(load_settings()).dead_letters()
    if redrive:
        n_redriven = sum(queue.redrive() for queue in queues)
        remark(f"redrove {count_noun(n_redriven, 'message')}" if n_redriven else "no dead letters: redrove nothing")
    elif delete:
        n_deleted = _delete_letters(queues, selected_ids, delete_all=delete_all)
        summary = f"deleted {count_noun(n_deleted, 'message')}" if n_deleted else "no dead letters: deleted nothing"
        remark(summary, to_stderr=True)
    else:
        out, n_letters = printable_stdout(), 0
        letters = (letter for queue in queues for letter in queue.messages())
        for n_letters, letter in enumerate(letters, 1):  # noqa: B007 (used after the loop)
            print(_format_letter(letter, _MAX_BODY_CHARS), file=out)
        remark(count_noun(n_letters, "dead letter") if n_letters else "no dead letters", to_stderr=True)


def _delete_letters(queues: list[DeadLetterQueue], ids: Collection[str], *, delete_all: bool) -> int:
    """Delete messages, and print each once it is deleted: the output is complete even if a later deletion fails.

    Returns the number of deleted messages. Raises BinwatchError if no message has one of the `ids`.
    """
    out, missing, n_deleted = printable_stdout(), set(ids), 0
    for queue in queues:
        for letter in queue.delete(lambda letter: delete_all or letter.id in ids):
            missing.discard(letter.id)
            n_deleted += 1
            print(f"deleted: {_format_letter(letter, len(letter.body))}", file=out)
    if missing:
        raise BinwatchError(
            f"no message has the id {', '.join(map(escape_unprintable, sorted(missing)))}; list them again"
        )
    return n_deleted


def _format_letter(letter: DeadLetter, max_body_chars: int) -> str:
    body = escape_unprintable(letter.body[:max_body_chars]) + ("…" if len(letter.body) > max_body_chars else "")
    return f"{letter.id} {letter.queue}: {escape_unprintable(letter.reason)}: {body}"


def _default_bundle(places: list[str], settings: Settings) -> Bundle:
    """Return the bundle that workers use if any place is in their bucket, otherwise the bundle of the settings."""
    if not any(place.startswith(f"s3://{settings.bucket}/") for place in places):
        return Bundle(settings.model_dir)
    from worker.model_manager import promoted_bundle

    return promoted_bundle(settings)


def _count(places: list[str], bundle: Bundle, settings: Settings, skipped_files: SkippedTally) -> Iterator[ResultLine]:
    """Count all photos in `places`; other files are added to `skipped_files`."""
    from worker.engine import Engine
    from worker.photo_inputs import S3_SCHEME, find_photos, make_loader
    from worker.pipeline import Prediction, load_ahead, predict

    engine = Engine.from_settings(bundle, settings)
    has_objects = any(place.startswith(S3_SCHEME) for place in places)
    with ThreadPoolExecutor(settings.fetch_threads if has_objects else settings.file_threads) as pool:
        loaded = load_ahead(
            pool,
            find_photos(places, settings, skipped_files),
            make_loader(engine.card, settings.limits),
            ahead=4 * settings.batch_size,
        )
        for file, result in predict(engine, loaded, settings.batch_size):
            if isinstance(result, Prediction):
                yield ResultLine(
                    photo=file.name,
                    count=CLASSES[result.predicted],
                    confidence=result.confidence,
                    probabilities=result.probabilities,
                    distribution=result.distribution,
                )
            else:
                error = file.error or result
                yield ResultLine(file.name, reason=error.reason if error else None, detail=str(error))


command_line.add_settings_note(cli)


def main() -> None:
    """Run the command line."""
    command_line.run(cli, "worker,cpu")


if __name__ == "__main__":
    main()
