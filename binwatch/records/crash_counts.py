"""Crash counts: how often an object was started without being finished, which happens if it crashes its worker."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from binwatch.records.engine import for_writing
from binwatch.records.tables import Base
from binwatch.records.upsert import insert_into


class CrashCount(Base):
    """Number of times that an object was started without being finished."""

    __tablename__ = "trials"

    bucket: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    begun: Mapped[int]
    last_at: Mapped[datetime]


class CrashCounts:
    """Counts the starts of each object until it is finished. Each method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = for_writing(engine)

    def begin(self, bucket: str, key: str) -> int:
        """Count a start of an object; returns how often it was started before without being finished."""
        with self._engine.begin() as connection:
            row = {"bucket": bucket, "key": key, "begun": 1, "last_at": datetime.now(UTC)}
            insert = insert_into(connection, CrashCount).values(**row)
            statement = insert.on_conflict_do_update(
                index_elements=["bucket", "key"],
                set_={"begun": CrashCount.begun + 1, "last_at": insert.excluded.last_at},
            )
            return int(connection.execute(statement.returning(CrashCount.begun)).scalar_one()) - 1

    def started_since(self, bucket: str, time: datetime) -> set[str]:
        """Return the keys of objects started since a time and not finished: they are in a queue or with a worker."""
        statement = select(CrashCount.key).where(CrashCount.bucket == bucket, CrashCount.last_at >= time)
        with self._engine.connect() as connection:
            return set(connection.execute(statement).scalars())

    def end(self, bucket: str, key: str) -> None:
        """Forget an object that was processed without a crash, whatever the result."""
        with self._engine.begin() as connection:
            connection.execute(delete(CrashCount).where(CrashCount.bucket == bucket, CrashCount.key == key))
