"""Health checks: probes of everything that a worker needs for its work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from binwatch.errors import describe_error

Probe = Callable[[], object]
"""Uses one part of the worker; raises if that part does not work."""

_FRESH_S = 2.0
"""Calls within this time get the last result, since each probe puts load on the part that it checks."""


class HealthChecks:
    """Runs all probes. Thread-safe."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._problems: dict[str, str] = {}

    def problems(self) -> dict[str, str]:
        """Name of each failed probe → its error; empty if the worker is healthy."""
        with self._lock:
            if time.monotonic() - self._asked > _FRESH_S:
                self._problems = {}
                for name, probe in self._probes.items():
                    try:
                        probe()
                    except Exception as error:  # of any kind: the part does not work
                        self._problems[name] = describe_error(error)
                self._asked = time.monotonic()
            return dict(self._problems)
