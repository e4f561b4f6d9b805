"""On SQS, a worker that stops has asked for tasks once more: what comes must be heard, or it stays hidden for minutes.

Celery's event loop ends at once when a worker is told to stop, while a call to receive tasks is still on its way. SQS
hides what it answers for the queue's visibility time-out, whether anyone reads the answer or not. kombu gives back what
comes after its consumer has gone, if only its loop runs a little longer.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

WITHIN_S = 3.0
"""Longer than a call to receive waits for tasks (`wait_time_seconds`), far shorter than any grace period."""


def hear_last_receive(hub: Any) -> None:
    """Run Celery's loop until no call to SQS is open. To be called once nothing is consumed any more."""
    client = getattr(hub, "_current_http_client", None)  # only on SQS
    deadline = time.monotonic() + WITHIN_S
    while client is not None and _open_calls(client) and time.monotonic() < deadline:
        with contextlib.suppress(Exception):  # whatever it is, there is no one left whom it could disturb
            hub.run_once()


def _open_calls(client: Any) -> int:
    # kombu has no public word for it. A call in hand has one of the client's handles, others wait in a queue.
    return len(client._curls) - len(client._free_list) + len(client._pending)
