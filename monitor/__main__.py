"""The monitor's commands: `python -m monitor --help`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console

from binwatch import command_line, logs
from binwatch.console import printable_stdout, remark
from binwatch.counts import MORE_THAN_5
from binwatch.documents import Document
from binwatch.documents.printing import print_csv, print_table
from binwatch.documents.writers import check_format, write_document
from binwatch.errors import BinwatchError
from binwatch.inventory.columns import ColumnNames
from binwatch.inventory.importing import import_file
from binwatch.inventory.known_answers import load_known_answers
from binwatch.keys import normalise_bin_id
from binwatch.listening import is_loopback, listen
from binwatch.metadata import MAX_QUANTITY
from binwatch.records.audits import AuditAnswer, AuditReason, add_audit, check_answer, clean_name, clean_note
from binwatch.records.draws import draw, photo_key
from binwatch.records.ranking import update_p_values
from binwatch.records.settle_variances import decide
from binwatch.records.variances import VarianceDecision, VarianceState
from binwatch.settings import load_settings
from binwatch.text import escape_unprintable
from monitor import formatting
from monitor.audit_import import import_audits
from monitor.export import export_audits
from monitor.records import Records, writable
from monitor.summary import summarise
from monitor.terminal import render
from monitor.totals import read_totals
from monitor.views.discrepancies import Direction, Filters, waiting_for_audit
from monitor.views.lists import LISTS, ListName

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


MAX_FLAG_LEVEL = 0.5
Filter = TypeVar("Filter", bound=BaseModel)
STDOUT = Path("-")
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File to write: .xlsx, .csv, .parquet, .json or .html; -: CSV on standard output. Default: a table on a"
        " terminal, CSV in a pipe.",
    ),
]
Bucket = Annotated[str | None, typer.Option(help="Bucket of the photos; default: BINWATCH_BUCKET.")]
RefusedFile = Annotated[
    Path | None, typer.Option(help="CSV to list refused rows in; default: FILE.refused.csv, beside FILE.")
]
Prefix = Annotated[
    str | None,
    typer.Option(help="Only bins whose id begins with this; if it contains a slash, photos whose key begins with it."),
]
BinColumn = Annotated[str | None, typer.Option(help="Name of the bin column; default: detected.")]
QuantityColumn = Annotated[str | None, typer.Option(help="Name of the quantity column.")]

audits = typer.Typer(no_args_is_help=True, help="Work with audits: quantities that people counted.")
app.add_typer(audits, name="audits")
variances = typer.Typer(
    no_args_is_help=True,
    help="Decide on variances: differences between audits and the inventory. `list variances` lists them.",
)
app.add_typer(variances, name="variances")
VarianceId = Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the variance.")]


def _name(name: str | None) -> str | None:
    try:
        return clean_name(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _required_name(name: str) -> str:
    if (plain := _name(name)) is None:
        raise typer.BadParameter("it is empty; name the person who decides")
    return plain


Approver = Annotated[str, typer.Option(help="Name of the person who decides.", callback=_required_name)]


@app.command("serve")
def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: BINWATCH_MONITOR_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0: any free one; default: BINWATCH_MONITOR_PORT.")
    ] = None,
    port_file: Annotated[Path | None, typer.Option(help="File to write the port to once the monitor listens.")] = None,
) -> None:
    """Serve the pages, the metrics and the API until stopped."""
    # Only this command needs the web and S3 clients, which take most of a second to load.
    from monitor.app import create_app
    from monitor.server import address_of, serve, write_port
    from monitor.services import make_services

    settings = load_settings()
    logs.configure(settings.log_format, settings.log_level)
    if host is not None:
        settings = settings.model_copy(update={"monitor_host": host})  # requests may name it
    services = make_services(settings)
    services.records.check()
    port = settings.monitor_port if port is None else port
    listener = listen(settings.monitor_host, port, "choose another with --host and --port")
    if not is_loopback(listener):
        logging.getLogger("monitor").warning(formatting.PUBLIC_ADDRESS_WARNING)

    def ready() -> None:
        if port_file:
            write_port(port_file, listener)
        if logs.is_json():
            logging.getLogger("monitor").info("listening on %s", address_of(listener))
        else:
            remark(f"monitor: {address_of(listener)}")

    services.drift.start()
    services.flags.start()
    services.random_audits.start()
    try:
        serve(create_app(services), listener, ready)
    finally:
        services.close()


@app.command()
def status(
    model: Annotated[str | None, typer.Option(help="Version of a model; default: the one in use.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, as /api/summary returns it.")] = False,
) -> None:
    """Print how well counts and expected quantities agree."""
    records = Records(load_settings().database_url.get_secret_value())
    records.check()
    summary = summarise(records.read(read_totals), model)
    if json:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        Console().print(render(summary))


@app.command()
def drift(
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if an alarm is raised, or if alarms are not up to date.")
    ] = False,
) -> None:
    """Print whether photos, counts and expected quantities have drifted.

    Windows are judged now; alarms are those that the running monitor has stored. This command only reads.
    """
    # S3's client takes most of a second to load.
    from monitor.drift.table import render as render_drift
    from monitor.services import make_services

    services = make_services(load_settings())
    services.records.check()
    report = services.stored_drift()
    Console().print(render_drift(report))
    if strict and (report.all_alarms or report.problem):
        raise typer.Exit(1)


@app.command()
def audit(
    bin_id: Annotated[str, typer.Argument(metavar="BIN", help="Id of the bin: its photo's name, e.g. 00123.")],
    quantity: Annotated[
        int | None, typer.Argument(min=0, max=MAX_QUANTITY, help="Number of items that you counted, or could see.")
    ] = None,
    answer: Annotated[
        AuditAnswer, typer.Option(help="What you found, if it is not the number of all items.")
    ] = AuditAnswer.COUNT,
    reason: Annotated[AuditReason | None, typer.Option(help="Why it was hard to tell.")] = None,
    note: Annotated[str | None, typer.Option(help="A note, on one line.")] = None,
    blind: Annotated[
        bool,
        typer.Option(
            "--blind/--sighted", help="Whether the person had seen neither count nor expected quantity before."
        ),
    ] = False,
    auditor: Annotated[str | None, typer.Option(help="Name of the person who counted.", callback=_name)] = None,
    bucket: Annotated[str | None, typer.Option(help="Bucket of the photo; default: BINWATCH_BUCKET.")] = None,
) -> None:
    """Record how many items a person counted in a bin: the truth that counts and inventory are measured against.

    Accuracy is measured by audits with --blind alone. Both numbers are printed once the answer is recorded.
    """
    settings = load_settings()
    try:
        check_answer(answer, quantity)
        details: dict[str, Any] = {"answer": answer, "reason": reason, "note": clean_note(note), "blind": blind}
    except ValueError as error:
        raise BinwatchError(f"not recorded: {error}") from error
    with writable(settings) as database:
        details["tolerance"] = settings.variance_tolerance
        audited = add_audit(database, bucket or settings.bucket, bin_id, quantity, auditor, **details)
    remark(formatting.audited(audited))


@audits.command()
def export(
    file: Annotated[Path, typer.Argument(help="CSV to write; default: standard output.")] = STDOUT,
    bucket: Bucket = None,
) -> None:
    """Export all audits, random draws, variances with their decisions, photos that were given to a second auditor, and
    known quantities: for other records (`audits import`), and as labels for training (`python -m trainer prepare
    --audits FILE`).
    """
    settings = load_settings()
    records = Records(settings.database_url.get_secret_value())
    records.check()
    report = export_audits(records, bucket or settings.bucket, None if file == STDOUT else file)
    remark(formatting.exported(report), to_stderr=report.file is None)
    if not report.rows:
        raise typer.Exit(1)


@audits.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="CSV that `audits export` wrote.")],
    refused: Annotated[
        Path | None,
        typer.Option(help="CSV to list refused rows in; default: FILE.refused.csv, beside FILE."),
    ] = None,
) -> None:
    """Import audits and what belongs to them from a file. Importing the same file again changes nothing.

    Whether an audit was blind is what the file says. A file with a bad row is not imported at all. Exits with 1 if rows
    do not fit the records.
    """
    with writable(load_settings()) as database:
        report = import_audits(file, database, refused)
    (typer.echo if report.refused else remark)(formatting.audits_imported(report))  # refused rows are always reported
    if report.refused:
        raise typer.Exit(1)


@audits.command("next")
def next_command(
    auditor: Annotated[str | None, typer.Option(help="Name of the person who will count.", callback=_name)] = None,
    by_doubt: Annotated[
        bool, typer.Option("--by-doubt", help="Draw bins up to twice as often where the model has doubts.")
    ] = False,
    skip: Annotated[
        str | None,
        typer.Option(metavar="BIN", help="Bin that was drawn before: leave it for later, and draw another."),
    ] = None,
    bucket: Annotated[str | None, typer.Option(help="Bucket of the skipped bin; default: BINWATCH_BUCKET.")] = None,
) -> None:
    """Draw the next bin at random, as the page does, and print it without what was counted and expected.

    Unlike the page, it gives no bin to test the auditor.
    """
    settings = load_settings()
    skipped = None if skip is None else (bucket or settings.bucket, normalise_bin_id(skip))
    with writable(settings) as database:
        drawn = draw(database, auditor, by_doubt=by_doubt, skipped=skipped)
        key = photo_key(database, drawn)
    typer.echo(f"bin {escape_unprintable(drawn.bin_id)}")
    typer.echo(f"photo s3://{escape_unprintable(drawn.bucket)}/{escape_unprintable(key)}")
    option = f" --auditor {shlex.quote(auditor)}" if auditor else ""
    bin_arguments = f"--bucket {shlex.quote(drawn.bucket)} {shlex.quote(drawn.bin_id)}"
    remark(f"answer it: python -m monitor audit --blind{option} {bin_arguments} NUMBER", to_stderr=True)


@audits.command()
def queue(
    out: Out = None,
    answer: Annotated[
        AuditAnswer | None,
        typer.Option(help="Bins whose last audit has this answer, e.g. go_and_count; default: bins without an audit."),
    ] = None,
    prefix: Prefix = None,
    recount: Annotated[
        bool, typer.Option("--recount", help="Bins with an open variance, which another person has to count again.")
    ] = False,
    auditor: Annotated[
        str | None,
        typer.Option(
            help="With --recount: the person who is to count; bins that this person has counted are left out.",
            callback=_name,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of bins.")] = 50,
) -> None:
    """Print or write the bins that wait for an audit, without what was counted and expected, the oddest first."""
    from monitor.files import queue_document

    settings = load_settings()
    # Not filtered by the settings' direction, which would reveal how these bins differ.
    values = {"answer": answer, "prefix": prefix, "variance": VarianceState.OPEN if recount else None}
    filters = waiting_for_audit(_parse_filters(Filters, values), auditor)
    _write(out, lambda records: queue_document(records, filters, settings.flag_level, limit), ("bin_id", "bucket"))


@variances.command()
def approve(
    variance: VarianceId,
    quantity: Annotated[int, typer.Argument(min=0, max=MAX_QUANTITY, help="Number that most people found.")],
    approver: Approver,
    note: Annotated[str | None, typer.Option(help="Why, on one line.")] = None,
) -> None:
    """Approve the number of a variance. Other systems take approved ones: list variances --state approved."""
    _decide(variance, approver, VarianceDecision.APPROVED, note, quantity)


@variances.command()
def reject(
    variance: VarianceId, approver: Approver, note: Annotated[str, typer.Option(help="Why, on one line.")]
) -> None:
    """Reject a variance: the inventory stays as it is."""
    _decide(variance, approver, VarianceDecision.REJECTED, note)


def _decide(
    variance: int, approver: str, decision: VarianceDecision, note: str | None, quantity: int | None = None
) -> None:
    try:
        plain = clean_note(note)
    except ValueError as error:
        raise BinwatchError(f"not decided: {error}") from error
    if decision is VarianceDecision.REJECTED and plain is None:
        raise BinwatchError("--note is empty; say why the variance is rejected")
    with writable(load_settings()) as database:
        decided = decide(database, variance, decision, approver, plain, quantity)
    remark(f"Variance {decided.id} of bin {escape_unprintable(decided.bin_id)} is {decided.state}")


@audits.command()
def agreement(out: Out = None) -> None:
    """Print or write how often each auditor is right, by photos that were counted twice and by known quantities."""
    from monitor.files import AUDITOR_TERMINAL_COLUMNS, auditors_document

    _write(out, auditors_document, AUDITOR_TERMINAL_COLUMNS)


@audits.command()
def known(
    file: Annotated[Path, typer.Argument(help="XLSX, XLS, ODS, CSV or Parquet file with bins and true quantities.")],
    bucket: Bucket = None,
    refused: RefusedFile = None,
    bin_column: BinColumn = None,
    quantity_column: QuantityColumn = None,
) -> None:
    """Load true quantities, to test auditors with. They apply to the present photos of the bins in the file.

    They must not come from audits in these records.

    binwatch monitor audits known index.csv --bin-column key --quantity-column label
    """
    settings, columns = load_settings(), ColumnNames(bin_column, quantity_column)
    with writable(settings) as database:
        report = load_known_answers(file, database, bucket or settings.bucket, refused, columns)
    (typer.echo if report.refused else remark)(formatting.imported(report))
    if not report.recorded + report.known:
        raise typer.Exit(1)


@app.command()
def rank(
    model: Annotated[list[str] | None, typer.Option(help="Version of a model; may be repeated. Default: all.")] = None,
) -> None:
    """Compute p-values of bins that were compared before their model's present calibration was recorded."""
    with writable(load_settings()) as database:
        ranked = update_p_values(database, model)
    remark(f"{formatting.many(ranked, 'bin')} judged by their model's present calibration")


@app.command("list")
def list_command(
    name: Annotated[ListName, typer.Argument(help="Which list.", metavar="|".join(ListName))],
    out: Out = None,
    prefix: Prefix = None,
    reason: Annotated[str | None, typer.Option(help="Only photos that failed for this reason, e.g. truncated.")] = None,
    model: Annotated[str | None, typer.Option(help="Only photos that this model version could not count.")] = None,
    state: Annotated[VarianceState | None, typer.Option(help="Only variances in this state, e.g. approved.")] = None,
) -> None:
    """Print or write a list behind the overview's numbers: failed photos with their reasons, photos without an expected
    quantity, expected quantities without a photo, or variances.

    binwatch monitor list failed --reason truncated --out failed.xlsx
    """
    from monitor.files import LIST_TERMINAL_COLUMNS, list_document

    if name is not ListName.FAILED and (reason or model):
        raise BinwatchError("--reason and --model are for the list failed; leave them out")
    if name is not ListName.VARIANCES and state:
        raise BinwatchError("--state is for the list variances; leave it out")
    filters = _parse_filters(LISTS[name].filters, {"prefix": prefix, "reason": reason, "model": model, "state": state})
    _write(out, lambda records: list_document(records, name, filters), LIST_TERMINAL_COLUMNS[name])


@app.command()
def discrepancies(
    out: Out = None,
    since: Annotated[datetime | None, typer.Option(help="Only photos stored at this time or later, in UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only photos stored before this time, in UTC.")] = None,
    prefix: Prefix = None,
    direction: Annotated[
        Direction | None, typer.Option(help="Missing or surplus items, or both; default: BINWATCH_FLAG_DIRECTION.")
    ] = None,
    size: Annotated[int, typer.Option(min=0, max=MORE_THAN_5, help="Minimum difference in items.")] = 0,
    audited: Annotated[
        bool | None, typer.Option("--audited/--not-audited", help="Only bins that were (not) audited; default: all.")
    ] = None,
    answer: Annotated[AuditAnswer | None, typer.Option(help="Only bins whose last audit has this answer.")] = None,
    variance: Annotated[VarianceState | None, typer.Option(help="Only bins with a variance in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only counts of this model version.")] = None,
    flagged: Annotated[bool, typer.Option("--flagged", help="Only flagged bins.")] = False,
    level: Annotated[float | None, typer.Option(help="Flag level; default: BINWATCH_FLAG_LEVEL.")] = None,
) -> None:
    """Print or write the bins whose count differs from the expected quantity, the oddest first, as the page lists them.

    binwatch monitor discrepancies --flagged --not-audited --out wrong.xlsx
    """
    from monitor.files import DISCREPANCY_TERMINAL_COLUMNS, discrepancies_document

    if level is not None and not 0 < level <= MAX_FLAG_LEVEL:
        raise BinwatchError(f"--level {level:g}: not above 0 and at most {MAX_FLAG_LEVEL:g}")
    settings = load_settings()
    values = {
        "since": since and since.replace(tzinfo=since.tzinfo or UTC),
        "until": until and until.replace(tzinfo=until.tzinfo or UTC),
        "prefix": prefix,
        "direction": direction or Direction(settings.flag_direction.value),
        "size": size,
        "audited": audited,
        "answer": answer,
        "variance": variance,
        "model": model,
        "flagged": flagged,
    }
    filters = _parse_filters(Filters, values)
    alpha = level or settings.flag_level
    _write(out, lambda records: discrepancies_document(records, filters, alpha), DISCREPANCY_TERMINAL_COLUMNS)


def _parse_filters(model: type[Filter], values: dict[str, Any]) -> Filter:
    """Create filters from the given options. Raises BinwatchError for an invalid value."""
    try:
        return model.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise BinwatchError(f"--{first['loc'][0]}: {first['msg'].lower()}") from error


def _write(out: Path | None, read_document: Callable[[Records], Document], terminal_columns: Sequence[str]) -> None:
    """Write a document to `out`, or print it. On a terminal, only `terminal_columns` are printed."""
    file = None if out == STDOUT else out
    if file:
        check_format(file)
    records = Records(load_settings().database_url.get_secret_value())
    records.check()
    document = read_document(records)
    if file:
        files = ", ".join(escape_unprintable(str(path)) for path in write_document(document, file))
        remark(f"{files}: {document.summary[0]}")
        return
    stdout, (sheet,) = printable_stdout(), document.sheets
    if out or not stdout.isatty():
        print_csv(sheet, stdout)
    elif sheet.rows:
        print_table(sheet, terminal_columns, stdout)
    remark(document.summary[0], to_stderr=True)


@app.command()
def expect(
    file: Annotated[Path, typer.Argument(help="XLSX, XLS, ODS, CSV or Parquet file with bins and quantities.")],
    as_of: Annotated[
        datetime | None,
        typer.Option(help="When these quantities were valid, in UTC; default: when the file was modified."),
    ] = None,
    bucket: Bucket = None,
    refused: RefusedFile = None,
    bin_column: BinColumn = None,
    quantity_column: QuantityColumn = None,
    article_column: Annotated[
        str | None, typer.Option(help="Name of the article column, if a bin has a row for each article.")
    ] = None,
) -> None:
    """Import expected quantities from a file. Importing the same file again changes nothing.

    Exits with 1 if no row was accepted, or if photos have been counted and no row names a bin that has one.
    """
    settings, columns = load_settings(), ColumnNames(bin_column, quantity_column, article_column)
    with writable(settings) as database:
        report = import_file(file, database, bucket or settings.bucket, as_of, refused, columns)
    (typer.echo if report.refused else remark)(formatting.imported(report))  # refused rows are always reported
    if not report.accepted or (report.photos and not report.rows_with_photo):
        raise typer.Exit(1)


command_line.add_settings_note(app)


def main() -> None:
    """Run the command line."""
    command_line.run(app, "monitor")


if __name__ == "__main__":
    main()
