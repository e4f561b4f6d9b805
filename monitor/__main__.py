"""The monitor's commands: `python -m monitor --help`."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from binwatch import command_line, logs
from binwatch.inventory.columns import Named
from binwatch.inventory.importing import import_file
from binwatch.listening import is_loopback, listen
from binwatch.metadata import MAX_QUANTITY
from binwatch.records.audits import add_audit
from binwatch.records.current import rank as rank_bins
from binwatch.settings import load_settings
from monitor import words
from monitor.export import export_audits
from monitor.records import Records, writable
from monitor.summary import summarise
from monitor.terminal import render
from monitor.totals import read_totals

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


audits = typer.Typer(no_args_is_help=True, help="What people found in bins.")
app.add_typer(audits, name="audits")


@app.command("serve")
def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on; else BINWATCH_MONITOR_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0: any free one; else BINWATCH_MONITOR_PORT.")
    ] = None,
    port_file: Annotated[Path | None, typer.Option(help="Write the port there once listening.")] = None,
) -> None:
    """Serve the page, the metrics and the API until told to stop."""
    # Only this command needs the web and S3 clients, which take most of a second to load.
    from monitor.app import create_app
    from monitor.server import address_of, serve, write_port
    from monitor.services import make_services

    settings = load_settings()
    logs.configure(settings.log_format, settings.log_level)
    if host is not None:
        settings = settings.model_copy(update={"monitor_host": host})  # a name that it answers to, too
    services = make_services(settings)
    services.records.check()
    wanted = settings.monitor_port if port is None else port
    listener = listen(settings.monitor_host, wanted, "choose another with --host and --port")
    if not is_loopback(listener):
        logging.getLogger("monitor").warning(words.OPEN)

    def ready() -> None:
        if port_file:
            write_port(port_file, listener)
        if logs.is_json():
            logging.getLogger("monitor").info("listening on %s", address_of(listener))
        else:
            typer.echo(f"monitor: {address_of(listener)}")

    services.drift.start()
    try:
        serve(create_app(services), listener, ready)
    finally:
        services.close()


@app.command()
def status(
    model: Annotated[str | None, typer.Option(help="Version of a model; else the one in use.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, as /api/summary gives it.")] = False,
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
def drift() -> None:
    """Print whether photos, counts and expected quantities have drifted from the model's reference."""
    # S3's client takes most of a second to load.
    from monitor.drift.table import render as render_drift
    from monitor.services import make_services

    services = make_services(load_settings())
    services.records.check()
    report = services.drift.now()
    Console().print(render_drift(report))


@app.command()
def audit(
    bin_id: Annotated[str, typer.Argument(metavar="BIN", help="Id of the bin: its photo's name, as 00123.")],
    quantity: Annotated[int, typer.Argument(min=0, max=MAX_QUANTITY, help="Items that you found in it.")],
    auditor: Annotated[str | None, typer.Option(help="Who counted.")] = None,
    bucket: Annotated[str | None, typer.Option(help="Bucket of the photo; else BINWATCH_BUCKET.")] = None,
) -> None:
    """Record how many items a person found in a bin: the truth that counts and inventory are measured against."""
    settings = load_settings()
    with writable(settings) as database:
        audited = add_audit(database, bucket or settings.bucket, bin_id, quantity, auditor)
    typer.echo(words.audited(audited))


@audits.command()
def export(
    file: Annotated[Path, typer.Argument(help="CSV to write: a line for each audited bin.")],
    bucket: Annotated[str | None, typer.Option(help="Bucket of the photos; else BINWATCH_BUCKET.")] = None,
) -> None:
    """Write audits as labels for training, as `python -m trainer prepare --audits FILE` takes them."""
    settings = load_settings()
    records = Records(settings.database_url.get_secret_value())
    records.check()
    done = export_audits(records, bucket or settings.bucket, file)
    typer.echo(words.exported(done))
    if not done.bins:
        raise typer.Exit(1)


@app.command()
def rank(
    model: Annotated[list[str] | None, typer.Option(help="Version of a model; may be repeated. Else all.")] = None,
) -> None:
    """Give p-values to bins that were compared before their model's calibration was recorded."""
    with writable(load_settings()) as database:
        ranked = rank_bins(database, model)
    typer.echo(f"{words.number(ranked)} bins have a p-value now that had none")


@app.command()
def expect(
    file: Annotated[Path, typer.Argument(help="XLSX, ODS, CSV or Parquet with the bins and their quantities.")],
    as_of: Annotated[
        datetime | None, typer.Option(help="When these quantities held, in UTC; else when the file was last changed.")
    ] = None,
    bucket: Annotated[str | None, typer.Option(help="Bucket of the photos; else BINWATCH_BUCKET.")] = None,
    refused: Annotated[
        Path | None, typer.Option(help="Where refused rows are listed; else beside FILE, as FILE.refused.csv.")
    ] = None,
    bin_column: Annotated[str | None, typer.Option(help="Name of the column with the bin; else guessed.")] = None,
    quantity_column: Annotated[str | None, typer.Option(help="The same of the quantity.")] = None,
    article_column: Annotated[
        str | None, typer.Option(help="The same of the article, if a bin has a row for each of its articles.")
    ] = None,
) -> None:
    """Import expected quantities from a file. Importing the same file again changes nothing.

    Exits with 1 if no row was accepted, or none is of a bin that has a photo, though photos have been counted.
    """
    settings, named = load_settings(), Named(bin_column, quantity_column, article_column)
    with writable(settings) as database:
        report = import_file(file, database, bucket or settings.bucket, as_of, refused, named)
    typer.echo(words.imported(report))
    if not report.accepted or (report.photos and not report.meeting):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line."""
    command_line.run(app, "monitor")


if __name__ == "__main__":
    main()
