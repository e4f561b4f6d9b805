"""Polling for a condition, with a deadline instead of a fixed delay."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

TIMEOUT_S = 180
"""Much longer than any wait takes on an idle machine."""


def wait_until(
    condition: Callable[[], bool], message: Callable[[], str], timeout_s: float = TIMEOUT_S, interval_s: float = 0.05
) -> None:
    """Poll until the condition holds. Raises AssertionError with `message()` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, message()
        time.sleep(interval_s)


def wait_until_ready(
    process: subprocess.Popen[bytes],
    connect: Callable[[], object],
    not_ready_error: type[Exception],
    log: Callable[[], str],
    timeout_s: float,
) -> None:
    """Poll until `connect` does not raise `not_ready_error`.

    Raises AssertionError with the log at the deadline, or if the process ends.
    """

    def is_ready() -> bool:
        assert process.poll() is None, log()
        try:
            connect()
        except not_ready_error:
            return False
        return True

    wait_until(is_ready, log, timeout_s)
