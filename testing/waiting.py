"""Waiting for a condition, with a deadline instead of a guess at how long it takes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

WITHIN_S = 180
"""Far beyond what anything here takes on a machine that does nothing else."""


def wait_until(
    condition: Callable[[], bool], otherwise: Callable[[], str], within_s: float = WITHIN_S, every_s: float = 0.05
) -> None:
    """Check the condition until it holds. Fails with the message of `otherwise` at the deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(every_s)


def wait_until_it_answers(
    process: subprocess.Popen[bytes],
    connect: Callable[[], object],
    refused: type[Exception],
    log: Callable[[], str],
    within_s: float,
) -> None:
    """Try to connect until the server does not refuse. Fails with its log at the deadline, or once it has ended."""

    def answers() -> bool:
        assert process.poll() is None, log()
        try:
            connect()
        except refused:
            return False
        return True

    wait_until(answers, log, within_s)
