"""Records the expected quantities of a file, with one transaction per chunk of rows.

After a broken connection, repeating the command records the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine, select

from binwatch.errors import BinwatchError
from binwatch.inventory.bins import BinIndex
from binwatch.inventory.columns import ColumnNames
from binwatch.inventory.reading import InventoryQuantity, InventoryReport, Refusals, read_expected
from binwatch.inventory.tables import open_table, unreadable_error
from binwatch.records.store import NewExpectation, Store
from binwatch.records.tables import Bin, Expectation
from binwatch.text import escape_unprintable

CHUNK_ROWS = 1000
"""Number of rows per transaction. With 9 columns each, this is below SQLite's limit of 32,766 parameters."""


def import_file(
    file: Path,
    database: Engine,
    bucket: str,
    as_of: datetime | None = None,
    refused: Path | None = None,
    names: ColumnNames = ColumnNames(),  # noqa: B008 (frozen)
) -> InventoryReport:
    """Record the expected quantities in `file`, valid since `as_of` (UTC) or since the file was last changed.

    `refused` is the file that lists the refused rows. Raises BinwatchError if `file` cannot be read or lacks a column.
    """
    etag, modified = _hash_and_modified(file)
    report = InventoryReport(file)
    valid_since, source = _valid_since(as_of, modified), escape_unprintable(file.name)  # a name may be invalid Unicode
    store = Store(database)
    with_photo = select(Bin.bin_id).where(Bin.bucket == bucket, Bin.count_id.is_not(None))
    with database.connect() as connection:
        bins = BinIndex(connection.execute(with_photo).scalars())
    report.photos = len(bins)
    refused = refused or file.with_name(file.name + ".refused.csv")
    remedy = "make room, or name another file with --refused, and import again: what was accepted by then is recorded"
    with Refusals(refused, report, remedy) as refusals:
        for chunk in chunks(read_expected(open_table(file, names), bins, refusals)):
            known = set() if as_of else _known_bins(database, bucket, etag, [quantity.bin for quantity in chunk])
            new = (quantity for quantity in chunk if quantity.bin not in known)
            recorded = store.add_expectations(
                [new_expectation(quantity, bucket, source, etag, valid_since) for quantity in new]
            )
            report.recorded += recorded
            report.known += len(chunk) - recorded
    return report


def new_expectation(
    quantity: InventoryQuantity, bucket: str, source: str, etag: str, valid_since: datetime
) -> NewExpectation:
    """Return the record of a bin's quantity. `source` is the name of the file, and `etag` identifies its content."""
    return NewExpectation(
        bucket=bucket,
        bin_id=quantity.bin,
        source=source,
        etag=etag,
        modified_at=valid_since,
        quantity=quantity.quantity,
        contents=quantity.contents,
    )


def _hash_and_modified(file: Path) -> tuple[str, datetime]:
    """Return the SHA-256 of the file, and the time when it was last changed."""
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return digest, datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError as error:
        raise unreadable_error(file, error) from error


def _valid_since(as_of: datetime | None, modified: datetime) -> datetime:
    """Return the time from which the quantities are valid.

    It is never in the future, since all quantities recorded until then would be ignored.
    """
    now = datetime.now(UTC)
    if as_of is None:
        return min(modified, now)
    valid_since = as_of.replace(tzinfo=as_of.tzinfo or UTC)
    if valid_since > now:
        raise BinwatchError(f"--as-of {valid_since:%Y-%m-%d %H:%M:%S} UTC is in the future; give a time in the past")
    return valid_since


def _known_bins(database: Engine, bucket: str, etag: str, bins: list[str]) -> set[str]:
    """Return the `bins` whose quantity has already been imported from a file with the same content."""
    where = (Expectation.bucket == bucket, Expectation.bin_id.in_(bins), Expectation.etag == etag)
    with database.connect() as connection:
        return set(connection.execute(select(Expectation.bin_id).where(*where)).scalars())


def chunks(rows: Iterator[InventoryQuantity]) -> Iterator[list[InventoryQuantity]]:
    """Yield the rows in lists of CHUNK_ROWS."""
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk
