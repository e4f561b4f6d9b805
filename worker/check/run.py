"""From a folder of photos and an inventory file to the list of bins. Faults of either are reported before counting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from binwatch.bundle import Bundle
from binwatch.documents.writers import check_format
from binwatch.errors import BinwatchError
from binwatch.inventory.bins import BinIndex
from binwatch.inventory.reading import OF_QUANTITIES, InventoryQuantity, InventoryReport, Refusals, read_expected
from binwatch.inventory.tables import first_bytes, open_table
from binwatch.settings import Settings
from binwatch.text import escape_unprintable
from worker.check.count import start
from worker.check.folder import ScannedFolder, look_through
from worker.check.layout import columns
from worker.check.options import CheckOptions

if TYPE_CHECKING:
    from worker.check.compare import CheckResult


def run(wanted: CheckOptions, settings: Settings, say: Callable[[str], object]) -> CheckResult:
    """Count, compare, rank and write; `say` prints a line. Raises BinwatchError."""
    for path in wanted.out:
        check_format(path)
    first_bytes(wanted.expected)
    wanted.check_files(settings.bin_list)
    columns(wanted.named.kept)
    folder = look_through(wanted.photos, wanted.owns, settings.bin_naming)
    expected = _read(wanted, folder, say)
    bundle = Bundle(settings.model_dir)
    # Without records every photo has to be counted. So counting starts while the database's libraries load, which takes
    # as long as a few batches.
    begun = None if wanted.database.exists() else start(settings, bundle, folder.photos)
    from worker.check.compare import compare

    return compare(wanted, settings, folder, expected, bundle, begun, say)


def _read(wanted: CheckOptions, folder: ScannedFolder, say: Callable[[str], object]) -> list[InventoryQuantity]:
    """Read the inventory file. Raises BinwatchError if no row matches a photo, before any photo is counted."""
    report = InventoryReport(wanted.expected)
    with Refusals(wanted.refused_rows, report, "make room, or allow files to be written there") as refusals:
        bins = BinIndex(photo.bin for photo in folder.photos)
        expected = list(read_expected(open_table(wanted.expected, wanted.named), bins, refusals))
    for line in report.lines():
        say(line)
    if not report.meeting:
        raise _nothing_to_compare(report, folder)
    return expected


def _nothing_to_compare(report: InventoryReport, folder: ScannedFolder) -> BinwatchError:
    of_quantities = sum(rows for why, rows in report.refused.items() if why in OF_QUANTITIES)
    if of_quantities > report.matched.total():
        return BinwatchError(
            f"{report.file}: no row is left to compare; {of_quantities:,} have no usable quantity: correct"
            " --quantity-column"
        )
    return BinwatchError(
        f"{report.file}: no row names a bin that has a photo; photos are named after bins, such as"
        f" {escape_unprintable(folder.photos[0].key)!r}: rename them, or say which column has such names with"
        " --bin-column"
    )
