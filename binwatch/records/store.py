"""Writes to the records. Every write is idempotent: a photo or metadata file that is delivered twice, late or out of
order changes nothing the second time.

New rows are appended to a ledger; binwatch.records.settle_bins then settles their bins, and defines the order of locks.
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
from binwatch.records.engine import WRITE
from binwatch.records.models import Calibrations, note_model
from binwatch.records.settle_bins import LATEST_PHOTO, LATEST_QUANTITY, Age, BinKey, settle_bins
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

_PHOTO = ("bucket", "key", "etag", "model_version")
"""Columns that identify a count; `_FILE`: an expected quantity."""
_FILE = ("bucket", "bin_id", "source", "etag", "modified_at")
_Bytes = bytes
"""`bytes`, by a name that still means the type inside `NewCount`, which has a field `bytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCount:
    """One model's count of one photo, or the reason why there is none (then `predicted` is None)."""

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
    """Probabilities of 0, 1, … items and of more, if the model distinguishes more numbers than the classes do."""
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    embedding: _Bytes | None = None
    """As binwatch.embedding packs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExpectation:
    """The expected quantity of one bin, or the reason why its source has none (then `quantity` is None)."""

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


class RecordsBroken(OutageError):
    """Nothing can be written to the records now."""


_EACH_TYPE: dict[TypeEngine[Any], Any] = {
    UtcDateTime(): datetime(2001, 2, 3, 4, 5, 6, 789012, UTC),
    Text(): r"it's 100% \\n",
    BigInteger(): 2**40,
    Double(): 0.1 + 0.2,
    LargeBinary(): bytes(range(256)),
    JSON(): {"shares": [1 / 3]},
}


class Store:
    """Writes to the records. Each method is one transaction, safe for several threads and processes."""

    def __init__(self, engine: Engine, naming: BinNaming = BY_FILE_NAME, slicing: Slicing | None = None) -> None:
        """`naming` maps a photo's key to its bin, `slicing` to its slice."""
        self._naming = naming
        self._engine = engine.execution_options(**{WRITE: True})
        self._slices = Slices(self._engine, slicing) if slicing else None
        self._calibrations = Calibrations()
        self._noted: dict[str, Calibration | None] = {}
        self._since: datetime | None = None

    def check(self) -> None:
        """Raise unless the records can be written, and a value of each type is returned unchanged.

        A read-only database still answers queries, as does one whose settings the driver or a proxy cannot handle.
        """
        with self._engine.begin() as connection:
            connection.execute(update(Bin).where(false()).values(photo_state=None))
            # The role may lack the permission to insert.
            connection.execute(insert(Count).from_select(["bucket"], select(literal("")).where(false())))
            sent = list(_EACH_TYPE.values())
            found = connection.execute(select(*(literal(value, kind) for kind, value in _EACH_TYPE.items()))).one()
        if list(found) != sent:
            raise RecordsBroken(f"the database returns {list(found)} for {sent}; check its settings")

    def use_model(self, version: str, calibration: Calibration | None) -> None:
        """Record a model in use. Its comparisons get p-values if it has a calibration."""
        if version in self._noted and self._noted[version] == calibration:
            return
        with self._engine.begin() as connection:
            note_model(connection, version, calibration, datetime.now(UTC))
        self._noted[version] = calibration

    def used_since(self, version: str) -> datetime:
        """Time of the first `use_model` of this model, by any worker."""
        with self._engine.connect() as connection:
            return connection.execute(select(Model.first_at).where(Model.model_version == version)).scalar_one()

    def counting_since(self) -> datetime:
        """Time of the first `use_model` of any model, by any worker. Call `use_model` before."""
        if self._since is None:
            with self._engine.connect() as connection:
                self._since = connection.execute(select(func.min(Model.first_at))).scalar_one()
        return self._since

    def add_counts(self, counts: Iterable[NewCount]) -> int:
        """Record counts and failures, and compare each that is its bin's latest. Returns the number of new rows."""
        found = [asdict(count) | {"bin_id": self._naming(count.key)} for count in counts]
        slices = self._slices.ids(row["key"] for row in found) if self._slices else {}
        found = [row | {"slice_id": slices.get(row["key"])} for row in found]
        # If a photo occurs twice, a count sorts after a failure, and so replaces it.
        rows = {_photo(row): row for row in sorted(found, key=lambda row: row["predicted"] is not None)}
        if not rows:
            return 0
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            new = _insert(connection, Count, _PHOTO, _sorted(rows, now))
            _stored_again(connection, found, new)
            _tried_again(connection, Count.__table__, _PHOTO, found, new, now)
            latest = _latest_photos(connection, found, new)
            settle_bins(connection, latest, LATEST_PHOTO, self._calibrations, now)
            add_to_totals(connection, PhotoTotal, photo_totals(new), now)
            add_to_totals(connection, SlicePhotoTotal, slice_photo_totals(new), now)
            add_to_totals(connection, PhotoHour, photo_hours(new, now), now)
        return len(new)

    def add_expectations(self, expectations: Iterable[NewExpectation]) -> int:
        """Record expected quantities, and compare each that is its bin's latest. Returns the number of new rows."""
        rows = {(e.bucket, e.bin_id, e.source, e.etag, e.modified_at): asdict(e) for e in expectations}
        if not rows:
            return 0
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            new = _insert(connection, Expectation, _FILE, _sorted(rows, now))
            _tried_again(connection, Expectation.__table__, _FILE, list(rows.values()), new, now)
            latest = _newest(
                ((row["bucket"], row["bin_id"]), (row["modified_at"], row["id"]))
                for row in new
                if row["reason"] not in NOT_FETCHED
            )
            settle_bins(connection, latest, LATEST_QUANTITY, self._calibrations, now)
            add_to_totals(connection, ExpectationTotal, expectation_totals(new), now)
        return len(new)


def _photo(row: Row) -> tuple[str, str, str, str]:
    """Identity of a count."""
    return row["bucket"], row["key"], row["etag"], row["model_version"]


def _sorted(rows: Mapping[tuple[Any, ...], Row], now: datetime) -> list[Row]:
    return [rows[key] | {"recorded_at": now} for key in sorted(rows)]


def _insert(
    connection: Connection, table: type[Count | Expectation], identity: tuple[str, ...], rows: list[Row]
) -> list[Row]:
    """Insert new rows, and replace failures of the same upload by successes; returns the inserted and replaced rows.

    If the same upload succeeds later, its failure was not its own.
    """
    insert = insert_into(connection, table)
    columns = table.__table__.c
    statement = insert.on_conflict_do_update(
        index_elements=identity,
        set_={name: insert.excluded[name] for name in rows[0] if name not in (*identity, "modified_at")},
        where=and_(columns.reason.is_not(None), insert.excluded.reason.is_(None)),
    )
    # Not all columns: embeddings and distributions are large and not needed.
    wanted = dict.fromkeys((*identity, "id", "modified_at", "reason"))
    of_count = [Count.predicted, Count.probabilities, Count.slice_id] if table is Count else []
    returned = statement.returning(*(columns[name] for name in wanted), *of_count)
    return [dict(row) for row in connection.execute(returned, rows).mappings()]


def _stored_again(connection: Connection, rows: Sequence[Row], new: Sequence[Row]) -> None:
    """Update `modified_at` of photos that were uploaded again, byte for byte: reconcile and backfill compare it."""
    written = {(_photo(row), row["modified_at"]) for row in new}
    last = {_photo(row): row for row in sorted(rows, key=lambda row: row["modified_at"])}
    names = ("of_bucket", "of_key", "of_etag", "of_model")
    later = [
        dict(zip(names, photo, strict=True)) | {"at": row["modified_at"], "fetched": row["reason"] not in NOT_FETCHED}
        for photo, row in sorted(last.items())
        if (photo, row["modified_at"]) not in written
    ]
    if later:
        identity = (Count.bucket, Count.key, Count.etag, Count.model_version)
        same = [column == bindparam(name) for column, name in zip(identity, names, strict=True)]
        # A failed fetch does not prove that a photo that was counted before has been uploaded again.
        sure = or_(Count.reason.is_not(None), bindparam("fetched", type_=Boolean()))
        older = Count.modified_at < bindparam("at")
        statement = update(Count).where(*same, sure, older).values(modified_at=bindparam("at"))
        connection.execute(statement, later)


def _tried_again(
    connection: Connection,
    table: Any,
    identity: tuple[str, ...],
    rows: Sequence[Row],
    new: Sequence[Row],
    now: datetime,
) -> None:
    """Set `tried_at` of failures that could not be fetched again: reconcile computes the next attempt from it."""
    written = {tuple(row[name] for name in identity) for row in new}
    tried = {tuple(row[name] for name in identity) for row in rows if row["reason"] in NOT_FETCHED} - written
    if tried:
        columns = table.c
        same = [columns[name] == bindparam(f"of_{name}") for name in identity]
        statement = update(table).where(*same, columns.reason.is_not(None)).values(tried_at=now)
        parameters = [{f"of_{name}": value for name, value in zip(identity, one, strict=True)} for one in sorted(tried)]
        connection.execute(statement, parameters)


def _latest_photos(connection: Connection, rows: Sequence[Row], new: Sequence[Row]) -> dict[BinKey, Age]:
    """The newest photo of each bin among `rows`, whether its count is new or not.

    Excludes photos that could not be fetched. Includes a photo that was restored (A, then B, then A again), although
    its count is old.
    """
    # For a photo that was not fetched, only the event's time is known, which is a little later than the store's.
    found = [row for row in rows if row["reason"] not in NOT_FETCHED]
    ids = {_photo(row): row["id"] for row in new}
    known = {_photo(row) for row in found} - ids.keys()
    if known:
        identity = tuple_(Count.bucket, Count.key, Count.etag, Count.model_version)
        statement = select(*identity.clauses, Count.id).where(identity.in_(sorted(known)))
        ids |= {tuple(row[:4]): row.id for row in connection.execute(statement)}
    return _newest(((row["bucket"], row["bin_id"]), (row["modified_at"], ids[_photo(row)])) for row in found)


def _newest(candidates: Iterable[tuple[BinKey, Age]]) -> dict[BinKey, Age]:
    newest: dict[BinKey, Age] = {}
    for key, age in candidates:
        newest[key] = max(age, newest.get(key, age))
    return newest
