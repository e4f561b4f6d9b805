"""Objects that a worker began and has not ended yet: what is left of those that a worker died of."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Engine, and_, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from binwatch.records.engine import WRITE
from binwatch.records.tables import Base
from binwatch.records.upsert import insert_into


class Trial(Base):
    """An object under suspicion, and how often it was begun and not ended since."""

    __tablename__ = "trials"

    bucket: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    begun: Mapped[int]
    last_at: Mapped[datetime]


class Trials:
    """Notes what is begun, before it is touched, and forgets it at the end. Each method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(**{WRITE: True})

    def begin(self, bucket: str, key: str) -> int:
        """Note that it begins now; returns how often it began before without an end."""
        with self._engine.begin() as connection:
            insert = insert_into(connection, Trial).values(bucket=bucket, key=key, begun=1, last_at=datetime.now(UTC))
            statement = insert.on_conflict_do_update(
                index_elements=["bucket", "key"],
                set_={"begun": Trial.begun + 1, "last_at": insert.excluded.last_at},
            )
            return int(connection.execute(statement.returning(Trial.begun)).scalar_one()) - 1

    def recent(self, bucket: str, since: datetime) -> set[str]:
        """Keys of what was begun since then and has not ended: its message is in a queue still, or with a worker."""
        statement = select(Trial.key).where(Trial.bucket == bucket, Trial.last_at >= since)
        with self._engine.connect() as connection:
            return set(connection.execute(statement).scalars())

    def end(self, bucket: str, key: str) -> None:
        """Forget it: whatever came of it, no worker died."""
        with self._engine.begin() as connection:
            connection.execute(delete(Trial).where(and_(Trial.bucket == bucket, Trial.key == key)))
