"""Group event messages until they have enough photos, or the oldest has waited long enough."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from binwatch.events import ObjectCreated
from worker.intake.routing import RoutedMessage
from worker.skipped import SkippedTally

Receipt = TypeVar("Receipt")

_MAX_KEY_BYTES = 64 * 1024
"""Maximum size of the keys in one task, as JSON. Celery and kombu inflate them by a factor of 1.8; some brokers refuse
messages over 256 KiB."""


@dataclass(slots=True)
class Group(Generic[Receipt]):
    """Objects from several event messages, and the receipts of these messages.

    The messages are deleted once the objects are in the task queue.
    """

    photos: list[ObjectCreated] = field(default_factory=list)
    metadata: list[ObjectCreated] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    rejected: list[tuple[Receipt, str]] = field(default_factory=list)
    """Receipts of messages that are invalid in whole or in part, each with the reason."""
    skipped: SkippedTally = field(default_factory=SkippedTally)
    """Other objects and events in the messages."""
    started_at: float | None = None
    """Arrival of the oldest message, by the monotonic clock; None if the group is empty."""

    def add(self, routed: RoutedMessage, receipt: Receipt) -> None:
        """Add a message."""
        self.photos += routed.photos
        self.metadata += routed.metadata
        self.skipped.add(routed.skipped)
        self.receipts.append(receipt)
        if routed.rejected is not None:
            self.rejected.append((receipt, routed.rejected))
        if self.started_at is None:
            self.started_at = time.monotonic()

    def is_due(self, size: int, wait_s: float) -> bool:
        """Return whether the group is full, or its oldest message has waited `wait_s` seconds."""
        if self.started_at is None:
            return False
        is_full = max(len(self.photos), len(self.metadata), len(self.receipts)) >= size
        return is_full or time.monotonic() - self.started_at >= wait_s


def split_into_chunks(items: list[ObjectCreated], size: int) -> list[list[ObjectCreated]]:
    """Split `items` into lists of at most `size`, in order, each small enough for one message."""
    chunks: list[list[ObjectCreated]] = []
    bytes_left = 0
    for item in items:
        key_bytes = len(json.dumps(item.key))
        if not chunks or len(chunks[-1]) == size or key_bytes > bytes_left:
            chunks.append([])
            bytes_left = _MAX_KEY_BYTES
        chunks[-1].append(item)
        bytes_left -= key_bytes
    return chunks
