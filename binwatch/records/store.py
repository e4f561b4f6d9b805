"""Writes counts and expected quantities to the records.

Every write is idempotent: photos and metadata files may be delivered twice, late or out of order. New rows are appended
to a ledger; then binwatch.records.settle_bins settles their bins. That module also defines the order of locks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    Double,
    Engine,
    LargeBinary,
    Text,
    and_,
    bindparam,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.types import TypeEngine

from binwatch.bin_naming import BY_FILE_NAME, BinNaming
from binwatch.bundle import Calibration
from binwatch.errors import NOT_FETCHED, MetadataReason, OutageError, Reason
from binwatch.metadata import Article
from binwatch.records.engine import for_writing
from binwatch.records.models import Calibrations, record_model
from binwatch.records.settle_bins import PHOTO_COLUMNS, QUANTITY_COLUMNS, BinKey, UploadOrder, settle_bins
from binwatch.records.settlement import Row
from binwatch.records.slices import Slices
from binwatch.records.tables import (
    Bin,
    Count,
    Expectation,
    ExpectationTotal,
    Model,
    PhotoHour,
    PhotoTotal,
    SlicePhotoTotal,
    UtcDateTime,
)
from binwatch.records.totals import add_to_totals, expectation_totals, photo_hours, photo_totals, slice_photo_totals
from binwatch.records.upsert import insert_into
from binwatch.slicing import Slicing

_COUNT_IDENTITY = ("bucket", "key", "etag", "model_version")
"""Columns that identify a count."""
_EXPECTATION_IDENTITY = ("bucket", "bin_id", "source", "etag", "modified_at")
"""Columns that identify an expected quantity."""
_Bytes = bytes
"""`bytes`, under a name that still means the type inside `NewCount`, which has a field `bytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCount:
    """A model's count of a photo, or the reason why it was not counted (then `predicted` is None)."""

    bucket: str
    key: str
    etag: str
    model_version: str
    precision: str
    provider: str
    modified_at: datetime
    version_id: str | None = None
    reason: Reason | None = None
    detail: str | None = None
    predicted: int | None = None
    probabilities: list[float] | None = None
    distribution: list[float] | None = None
    """Probabilities of 0, 1, … items and of more, if the model distinguishes more numbers than the classes."""
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    embedding: _Bytes | None = None
    """Packed by binwatch.embedding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExpectation:
    """The expected quantity of a bin, or the reason why its source has none (then `quantity` is None)."""

    bucket: str
    bin_id: str
    source: str
    etag: str
    modified_at: datetime
    quantity: int | None = None
    reason: MetadataReason | None = None
    detail: str | None = None
    contents: list[Article] | None = None
    """The articles in the bin."""


class RecordsNotWritable(OutageError):
    """Nothing can be written to the records at present."""


_TYPE_SAMPLES: dict[TypeEngine[Any], Any] = {
    UtcDateTime(): datetime(2001, 2, 3, 4, 5, 6, 789012, UTC),
    Text(): r"it's 100% \\n",
    BigInteger(): 2**40,
    Double(): 0.1 + 0.2,
    LargeBinary(): bytes(range(256)),
    JSON(): {"shares": [1 / 3]},
}
"""A value of each column type, for `Store.check`."""


class Store:
    """Writes to the records. Each method is one transaction, safe for several threads and processes."""

    def __init__(self, engine: Engine, naming: BinNaming = BY_FILE_NAME, slicing: Slicing | None = None) -> None:
        """`naming` maps a photo's key to its bin, `slicing` to its slice."""
        self._naming = naming
        self._engine = for_writing(engine)
        self._slices = Slices(self._engine, slicing) if slicing else None
        self._calibrations = Calibrations()
        self._recorded_models: dict[str, Calibration | None] = {}
        self._first_model_used_at: datetime | None = None

    def check(self) -> None:
        """Raise unless the records can be written, and give back a value of each type unchanged.

        A read-only database still answers queries, and so does one with settings that the driver or a proxy cannot
        handle.
        """
        with self._engine.begin() as connection:
            connection.execute(update(Bin).where(false()).values(photo_state=None))
            # The role may lack the permission to insert.
            connection.execute(insert(Count).from_select(["bucket"], select(literal("")).where(false())))
            sent = list(_TYPE_SAMPLES.values())
            literals = (literal(value, type_) for type_, value in _TYPE_SAMPLES.items())
            received = list(connection.execute(select(*literals)).one())
        if received != sent:
            raise RecordsNotWritable(f"the database returns {received} for {sent}; check its settings")

    def use_model(self, version: str, calibration: Calibration | None) -> None:
        """Record a model in use. Its comparisons get p-values if it has a calibration."""
        if version in self._recorded_models and self._recorded_models[version] == calibration:
            return
        with self._engine.begin() as connection:
            record_model(connection, version, calibration, datetime.now(UTC))
        self._recorded_models[version] = calibration

    def model_first_used_at(self, version: str) -> datetime:
        """Return the time of the first `use_model` of this model, by any worker."""
        with self._engine.connect() as connection:
            return connection.execute(select(Model.first_at).where(Model.model_version == version)).scalar_one()

    def first_model_used_at(self) -> datetime:
        """Return the time of the first `use_model` of any model, by any worker. Call `use_model` before."""
        if self._first_model_used_at is None:
            with self._engine.connect() as connection:
                self._first_model_used_at = connection.execute(select(func.min(Model.first_at))).scalar_one()
        return self._first_model_used_at

    def add_counts(self, counts: Iterable[NewCount]) -> int:
        """Record counts and failures, and compare each that is its bin's latest.

        Returns the number of rows that are new, or that replaced a failure.
        """
        rows = [asdict(count) | {"bin_id": self._naming(count.key)} for count in counts]
        slice_ids = self._slices.ids(row["key"] for row in rows) if self._slices else {}
        rows = [row | {"slice_id": slice_ids.get(row["key"])} for row in rows]
        # If a photo occurs twice, a count sorts after a failure, and so replaces it.
        unique = {_count_identity(row): row for row in sorted(rows, key=lambda row: row["predicted"] is not None)}
        if not unique:
            return 0
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            written = _upsert(connection, Count, _COUNT_IDENTITY, _in_order(unique, now))
            _update_modified_at(connection, rows, written)
            _update_tried_at(connection, Count, _COUNT_IDENTITY, rows, written, now)
            latest = _latest_photos(connection, rows, written)
            settle_bins(connection, latest, PHOTO_COLUMNS, self._calibrations, now)
            add_to_totals(connection, PhotoTotal, photo_totals(written), now)
            add_to_totals(connection, SlicePhotoTotal, slice_photo_totals(written), now)
            add_to_totals(connection, PhotoHour, photo_hours(written, now), now)
        return len(written)

    def add_expectations(self, expectations: Iterable[NewExpectation]) -> int:
        """Record expected quantities, and compare each that is its bin's latest.

        Returns the number of rows that are new, or that replaced a failure.
        """
        unique = {(e.bucket, e.bin_id, e.source, e.etag, e.modified_at): asdict(e) for e in expectations}
        if not unique:
            return 0
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            written = _upsert(connection, Expectation, _EXPECTATION_IDENTITY, _in_order(unique, now))
            rows = list(unique.values())
            _update_tried_at(connection, Expectation, _EXPECTATION_IDENTITY, rows, written, now)
            latest = _latest_by_bin(
                ((row["bucket"], row["bin_id"]), (row["modified_at"], row["id"]))
                for row in written
                if row["reason"] not in NOT_FETCHED
            )
            settle_bins(connection, latest, QUANTITY_COLUMNS, self._calibrations, now)
            add_to_totals(connection, ExpectationTotal, expectation_totals(written), now)
        return len(written)


def _count_identity(row: Row) -> tuple[str, str, str, str]:
    return row["bucket"], row["key"], row["etag"], row["model_version"]


def _in_order(rows: Mapping[tuple[Any, ...], Row], now: datetime) -> list[Row]:
    """Return the rows in the order of their identity, which is the order of their locks, with the time of recording."""
    return [rows[identity] | {"recorded_at": now} for identity in sorted(rows)]


def _upsert(
    connection: Connection, table: type[Count | Expectation], identity: tuple[str, ...], rows: list[Row]
) -> list[Row]:
    """Insert new rows, and replace failures of the same upload by successes; returns the rows that were written.

    If the same upload succeeds later, something else was to blame for its failure.
    """
    insert = insert_into(connection, table)
    columns = table.__table__.c
    statement = insert.on_conflict_do_update(
        index_elements=identity,
        set_={name: insert.excluded[name] for name in rows[0] if name not in (*identity, "modified_at")},
        where=and_(columns.reason.is_not(None), insert.excluded.reason.is_(None)),
    )
    # Not all columns, since embeddings and distributions are large.
    names = dict.fromkeys((*identity, "id", "modified_at", "reason"))
    count_columns = [Count.predicted, Count.probabilities, Count.slice_id] if table is Count else []
    returning = statement.returning(*(columns[name] for name in names), *count_columns)
    return [dict(row) for row in connection.execute(returning, rows).mappings()]


def _update_modified_at(connection: Connection, rows: Sequence[Row], written: Sequence[Row]) -> None:
    """Update `modified_at` of photos that were uploaded again unchanged, since reconcile and backfill compare it."""
    up_to_date = {(_count_identity(row), row["modified_at"]) for row in written}
    last = {_count_identity(row): row for row in sorted(rows, key=lambda row: row["modified_at"])}
    parameter_names = ("of_bucket", "of_key", "of_etag", "of_model")
    parameters = [
        dict(zip(parameter_names, identity, strict=True))
        | {"at": row["modified_at"], "fetched": row["reason"] not in NOT_FETCHED}
        for identity, row in sorted(last.items())
        if (identity, row["modified_at"]) not in up_to_date
    ]
    if parameters:
        columns = (Count.bucket, Count.key, Count.etag, Count.model_version)
        is_count = [column == bindparam(name) for column, name in zip(columns, parameter_names, strict=True)]
        # A failed fetch does not prove that a photo that was counted before has been uploaded again.
        is_uploaded = or_(Count.reason.is_not(None), bindparam("fetched", type_=Boolean()))
        is_older = Count.modified_at < bindparam("at")
        statement = update(Count).where(*is_count, is_uploaded, is_older).values(modified_at=bindparam("at"))
        connection.execute(statement, parameters)


def _update_tried_at(
    connection: Connection,
    table: type[Count | Expectation],
    identity: tuple[str, ...],
    rows: Sequence[Row],
    written: Sequence[Row],
    now: datetime,
) -> None:
    """Set `tried_at` of recorded failures whose fetch has failed again.

    Reconcile computes the time of the next attempt from it.
    """
    new = {tuple(row[name] for name in identity) for row in written}
    failed_again = {tuple(row[name] for name in identity) for row in rows if row["reason"] in NOT_FETCHED} - new
    if failed_again:
        columns = table.__table__.c
        is_row = [columns[name] == bindparam(f"of_{name}") for name in identity]
        statement = update(table).where(*is_row, columns.reason.is_not(None)).values(tried_at=now)
        parameter_names = [f"of_{name}" for name in identity]
        parameters = [dict(zip(parameter_names, values, strict=True)) for values in sorted(failed_again)]
        connection.execute(statement, parameters)


def _latest_photos(connection: Connection, rows: Sequence[Row], written: Sequence[Row]) -> dict[BinKey, UploadOrder]:
    """Find the latest photo of each bin among `rows`, including photos that were counted before.

    A photo that was restored (A, then B, then A again) is the latest although its count is old. Photos that could not
    be fetched are excluded: only the time of their event is known, which is a little later than the time of storing.
    """
    fetched = [row for row in rows if row["reason"] not in NOT_FETCHED]
    ids = {_count_identity(row): row["id"] for row in written}
    counted_before = {_count_identity(row) for row in fetched} - ids.keys()
    if counted_before:
        identity = tuple_(Count.bucket, Count.key, Count.etag, Count.model_version)
        statement = select(*identity.clauses, Count.id).where(identity.in_(sorted(counted_before)))
        ids |= {tuple(row[:4]): row.id for row in connection.execute(statement)}
    return _latest_by_bin(
        ((row["bucket"], row["bin_id"]), (row["modified_at"], ids[_count_identity(row)])) for row in fetched
    )


def _latest_by_bin(uploads: Iterable[tuple[BinKey, UploadOrder]]) -> dict[BinKey, UploadOrder]:
    latest: dict[BinKey, UploadOrder] = {}
    for key, order in uploads:
        latest[key] = max(order, latest.get(key, order))
    return latest
