"""Health checks: probes of everything that a worker needs for its work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from binwatch.errors import describe_error

Probe = Callable[[], object]
"""A function that uses one part of the worker, and raises if the part does not work."""

_CACHE_S = 2.0
"""How long a result is reused, in seconds: each probe puts load on the part that it checks."""


class HealthChecks:
    """Runs all probes, at most once every `_CACHE_S` seconds. Thread-safe."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes
        self._lock = threading.Lock()
        self._probed_at = float("-inf")
        self._problems: dict[str, str] = {}

    def problems(self) -> dict[str, str]:
        """Return the name of each failed probe → its error; empty if the worker is healthy."""
        with self._lock:
            if time.monotonic() - self._probed_at > _CACHE_S:
                self._problems = {}
                for name, probe in self._probes.items():
                    try:
                        probe()
                    except Exception as error:  # of any kind: the part does not work
                        self._problems[name] = describe_error(error)
                self._probed_at = time.monotonic()
            return dict(self._problems)
