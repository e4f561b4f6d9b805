"""Whether a worker can do its work: asked anew each time, on the very parts that it needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from binwatch.errors import described

Probe = Callable[[], object]
"""Does something that only works if the part works; raises if it does not."""

_FRESH_S = 2.0
"""A prober that asks more often than this gets the last answer: probes cost the parts that they ask."""


class HealthChecks:
    """Asks every part. Safe to call from several threads."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._problems: dict[str, str] = {}

    def problems(self) -> dict[str, str]:
        """Part → what is wrong with it; empty if the worker can do its work."""
        with self._lock:
            if time.monotonic() - self._asked > _FRESH_S:
                self._problems = {}
                for name, probe in self._probes.items():
                    try:
                        probe()
                    except Exception as error:  # of any kind: the part does not work
                        self._problems[name] = described(error)
                self._asked = time.monotonic()
            return dict(self._problems)
