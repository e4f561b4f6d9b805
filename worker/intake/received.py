"""An event message as it came, whatever it came from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Received:
    """A message; `receipt` is what its queue needs to delete it. `sent_at` is in seconds since 1970, if known."""

    id: str
    body: str | bytes
    receipt: Any
    sent_at: float | None = None

    @property
    def age_s(self) -> float:
        """Seconds since it was sent; 0 if its queue does not say."""
        return time.time() - self.sent_at if self.sent_at is not None else 0.0
