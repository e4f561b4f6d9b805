"""Groups event messages until they hold enough photos, or the oldest has waited long enough."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from binwatch.events import ObjectCreated
from worker.intake.routing import Routed
from worker.skipped import SkippedTally

Receipt = TypeVar("Receipt")

_MOST_KEY_BYTES = 64 * 1024
"""Most bytes of keys in one task, as JSON. Celery and kombu encode them in 1.8 times as many; some brokers refuse a
message over 256 KiB."""


@dataclass(slots=True)
class Group(Generic[Receipt]):
    """Objects from several event messages, and the receipts of these messages, which are deleted once the objects are
    in the task queue."""

    photos: list[ObjectCreated] = field(default_factory=list)
    metadata: list[ObjectCreated] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    rejected: list[tuple[Receipt, str]] = field(default_factory=list)
    """Messages that are invalid in whole or in part, with the reason."""
    skipped: SkippedTally = field(default_factory=SkippedTally)
    """Other objects and events in the messages."""
    since: float | None = None
    """Arrival of the oldest message, by the monotonic clock."""

    def add(self, routed: Routed, receipt: Receipt) -> None:
        """Add a message."""
        self.photos += routed.photos
        self.metadata += routed.metadata
        self.skipped.add(routed.skipped)
        self.receipts.append(receipt)
        if routed.rejected is not None:
            self.rejected.append((receipt, routed.rejected))
        if self.since is None:
            self.since = time.monotonic()

    def is_due(self, size: int, wait_s: float) -> bool:
        """Whether the group is full, or its oldest message has waited `wait_s` seconds."""
        if self.since is None:
            return False
        full = len(self.photos) >= size or len(self.metadata) >= size or len(self.receipts) >= size
        return full or time.monotonic() - self.since >= wait_s


def chunks(items: list[ObjectCreated], size: int) -> list[list[ObjectCreated]]:
    """Split `items` into lists of at most `size`, in order, each small enough for one message."""
    pieces: list[list[ObjectCreated]] = []
    bytes_left = 0
    for item in items:
        cost = len(json.dumps(item.key))
        if not pieces or len(pieces[-1]) == size or cost > bytes_left:
            pieces.append([])
            bytes_left = _MOST_KEY_BYTES
        pieces[-1].append(item)
        bytes_left -= cost
    return pieces
