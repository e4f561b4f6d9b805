"""An event message as it came, whatever it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Received:
    """A message; `receipt` is what its queue needs to delete it."""

    id: str
    body: str | bytes
    receipt: Any
