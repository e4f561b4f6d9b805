"""Crash counts: how often an object was started and not finished, which happens if it crashes its worker."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Engine, and_, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from binwatch.records.engine import WRITE
from binwatch.records.tables import Base
from binwatch.records.upsert import insert_into


class Trial(Base):
    """A suspected object, and how often it was started without being finished."""

    __tablename__ = "trials"

    bucket: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    begun: Mapped[int]
    last_at: Mapped[datetime]


class Trials:
    """Notes each object before it is processed, and removes the note at the end. Each method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(**{WRITE: True})

    def begin(self, bucket: str, key: str) -> int:
        """Note the start of an object; returns how often it was started before without being finished."""
        with self._engine.begin() as connection:
            insert = insert_into(connection, Trial).values(bucket=bucket, key=key, begun=1, last_at=datetime.now(UTC))
            statement = insert.on_conflict_do_update(
                index_elements=["bucket", "key"],
                set_={"begun": Trial.begun + 1, "last_at": insert.excluded.last_at},
            )
            return int(connection.execute(statement.returning(Trial.begun)).scalar_one()) - 1

    def recent(self, bucket: str, since: datetime) -> set[str]:
        """Keys of objects started since `since` and not finished. Their messages are in a queue or with a worker."""
        statement = select(Trial.key).where(Trial.bucket == bucket, Trial.last_at >= since)
        with self._engine.connect() as connection:
            return set(connection.execute(statement).scalars())

    def end(self, bucket: str, key: str) -> None:
        """Remove the note: the object was processed without a crash, whatever the result."""
        with self._engine.begin() as connection:
            connection.execute(delete(Trial).where(and_(Trial.bucket == bucket, Trial.key == key)))
