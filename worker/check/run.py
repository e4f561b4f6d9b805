"""Runs a check: reads the folder and the inventory file, reports faults in them, then counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from binwatch.bundle import Bundle
from binwatch.documents.writers import check_format
from binwatch.errors import BinwatchError
from binwatch.inventory.bins import BinIndex
from binwatch.inventory.reading import QUANTITY_REFUSALS, InventoryQuantity, InventoryReport, Refusals, read_expected
from binwatch.inventory.tables import first_bytes, open_table
from binwatch.settings import Settings
from binwatch.text import escape_unprintable
from worker.check.count import start_counting
from worker.check.folder import ScannedFolder, scan_folder
from worker.check.layout import bin_sheet_columns
from worker.check.options import CheckOptions

if TYPE_CHECKING:
    from worker.check.compare import CheckResult


def run_check(options: CheckOptions, settings: Settings, print_line: Callable[[str], object]) -> CheckResult:
    """Count the photos, compare them with the inventory, and write the ranked lists. Raises BinwatchError."""
    for path in options.lists:
        check_format(path)
    first_bytes(options.inventory)
    options.protect_inputs(settings.bin_list)
    bin_sheet_columns(options.column_names.kept)
    folder = scan_folder(options.photos, options.is_own_file, settings.bin_naming)
    expected = _read_inventory(options, folder, print_line)
    bundle = Bundle(settings.model_dir)
    # Without records, every photo must be counted. Counting then starts while the database's libraries load, which
    # takes as long as counting a few batches.
    running = None if options.database.exists() else start_counting(settings, bundle, folder.photos)
    from worker.check.compare import count_and_compare

    return count_and_compare(options, settings, folder, expected, bundle, running, print_line)


def _read_inventory(
    options: CheckOptions, folder: ScannedFolder, print_line: Callable[[str], object]
) -> list[InventoryQuantity]:
    """Read the inventory file. Raises BinwatchError if no row matches a photo, before any photo is counted."""
    report = InventoryReport(options.inventory)
    with Refusals(options.refused_rows, report, "make room, or allow files to be written there") as refusals:
        bins = BinIndex(photo.bin for photo in folder.photos)
        expected = list(read_expected(open_table(options.inventory, options.column_names), bins, refusals))
    for line in report.lines():
        print_line(line)
    if not report.rows_with_photo:
        raise _no_row_to_compare(report, folder)
    return expected


def _no_row_to_compare(report: InventoryReport, folder: ScannedFolder) -> BinwatchError:
    bad_quantities = sum(rows for refusal, rows in report.refused.items() if refusal in QUANTITY_REFUSALS)
    if bad_quantities > report.matched.total():
        return BinwatchError(
            f"{report.file}: no row is left to compare; {bad_quantities:,} have no usable quantity: correct"
            " --quantity-column"
        )
    return BinwatchError(
        f"{report.file}: no row names a bin that has a photo; photos are named after bins, such as"
        f" {escape_unprintable(folder.photos[0].key)!r}: rename them, or say which column has such names with"
        " --bin-column"
    )
