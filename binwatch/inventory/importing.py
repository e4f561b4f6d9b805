"""Records the expected quantities of a file, in chunks of one transaction each. After a broken connection, the same
command records the rest."""

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
from binwatch.inventory.tables import open_table, unreadable
from binwatch.records.store import NewExpectation, Store
from binwatch.records.tables import Bin, Expectation
from binwatch.text import escape_unprintable

CHUNK = 1000
"""Rows in a transaction. With 9 columns each, below SQLite's limit of 32,766 parameters."""


def import_file(
    file: Path,
    database: Engine,
    bucket: str,
    as_of: datetime | None = None,
    refused: Path | None = None,
    named: ColumnNames = ColumnNames(),  # noqa: B008 (frozen)
) -> InventoryReport:
    """Record the expected quantities in `file`, valid since `as_of` (UTC), or since the file was last changed.

    Raises BinwatchError if the file cannot be read or lacks a column.
    """
    etag, changed = _identity(file)
    report = InventoryReport(file)
    moment, source = _moment(as_of, changed), escape_unprintable(file.name)  # a name may be invalid Unicode
    store = Store(database)
    with_photo = select(Bin.bin_id).where(Bin.bucket == bucket, Bin.count_id.is_not(None))
    with database.connect() as connection:
        bins = BinIndex(connection.execute(with_photo).scalars())
    report.photos = len(bins)
    listed = refused or file.with_name(file.name + ".refused.csv")
    remedy = "make room, or name another file with --refused, and import again: what was accepted by then is recorded"
    with Refusals(listed, report, remedy) as refusals:
        for chunk in chunks(read_expected(open_table(file, named), bins, refusals)):
            known = set() if as_of else _known(database, bucket, etag, [expected.bin for expected in chunk])
            news = (expected for expected in chunk if expected.bin not in known)
            new = [new_expectation(expected, bucket, source, etag, moment) for expected in news]
            recorded = store.add_expectations(new)
            report.recorded += recorded
            report.known += len(chunk) - recorded
    return report


def new_expectation(
    expected: InventoryQuantity, bucket: str, source: str, etag: str, moment: datetime
) -> NewExpectation:
    """The record of a bin's quantity; `source` is the file's name, `etag` identifies its content."""
    return NewExpectation(
        bucket=bucket,
        bin_id=expected.bin,
        source=source,
        etag=etag,
        modified_at=moment,
        quantity=expected.quantity,
        contents=expected.contents,
    )


def _identity(file: Path) -> tuple[str, datetime]:
    """SHA-256 of the file, and when it was last changed."""
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return digest, datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError as error:
        raise unreadable(file, error) from error


def _moment(as_of: datetime | None, changed: datetime) -> datetime:
    """The time from which the quantities are valid, never in the future: quantities until then would be ignored."""
    now = datetime.now(UTC)
    if as_of is None:
        return min(changed, now)
    moment = as_of.replace(tzinfo=as_of.tzinfo or UTC)
    if moment > now:
        raise BinwatchError(f"--as-of {moment:%Y-%m-%d %H:%M:%S} UTC is in the future; give a time in the past")
    return moment


def _known(database: Engine, bucket: str, etag: str, bins: list[str]) -> set[str]:
    """Those of `bins` whose quantity was already imported from this file, identified by its content."""
    where = (Expectation.bucket == bucket, Expectation.bin_id.in_(bins), Expectation.etag == etag)
    with database.connect() as connection:
        return set(connection.execute(select(Expectation.bin_id).where(*where)).scalars())


def chunks(rows: Iterator[InventoryQuantity]) -> Iterator[list[InventoryQuantity]]:
    """Lists of CHUNK rows."""
    while chunk := list(islice(rows, CHUNK)):
        yield chunk
