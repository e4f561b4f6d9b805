"""Records the known answers of a file, such as the labels of a data set."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from binwatch.inventory.bins import BinIndex
from binwatch.inventory.columns import ColumnNames
from binwatch.inventory.importing import chunks
from binwatch.inventory.reading import InventoryReport, Refusals, read_expected
from binwatch.inventory.tables import open_table
from binwatch.records.repeats import add_known_answers, bins_with_count
from binwatch.text import escape_unprintable


def load_known_answers(
    file: Path,
    database: Engine,
    bucket: str,
    refused: Path | None = None,
    names: ColumnNames = ColumnNames(),  # noqa: B008 (frozen)
) -> InventoryReport:
    """Record the quantities in `file` as the true quantities of the latest photos of its bins.

    Bins without a counted photo are ignored. `refused` is the file that lists the refused rows. Raises BinwatchError if
    `file` cannot be read or lacks a column.
    """
    report = InventoryReport(file)
    with database.connect() as connection:
        bins = BinIndex(bins_with_count(connection, bucket))
    report.photos = len(bins)
    refused = refused or file.with_name(file.name + ".refused.csv")
    remedy = "make room, or name another file with --refused, and load it again: what was accepted by then is noted"
    with Refusals(refused, report, remedy) as refusals:
        for chunk in chunks(read_expected(open_table(file, names), bins, refusals)):
            quantities = {quantity.bin: quantity.quantity for quantity in chunk if quantity.has_photo}
            new = add_known_answers(database, bucket, quantities, escape_unprintable(file.name))
            report.recorded += new
            report.known += len(quantities) - new
    return report
