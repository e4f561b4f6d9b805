"""The worker's log lines, which name the Celery task that they are from; and Celery's own lines, in the same form."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from functools import partial
from typing import Any, TextIO

from celery import current_task
from celery.apps import worker as celery_worker

from binwatch import logs
from binwatch.settings import LogFormat, LogLevel

_CELERYS_OWN = ("celery.task", "multiprocessing")
"""Loggers that Celery gives handlers of its own, unless they have some."""


def configure(form: LogFormat, level: LogLevel = LogLevel.INFO, stream: TextIO | None = None) -> None:
    """Send log lines of this process, from `level` on, to `stream`, standard error if none is given."""
    handler = logs.configure(form, level, stream, also=_add_task)
    for name in _CELERYS_OWN:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
    # What Celery 5.7 writes past all loggers, from its handlers of signals, such as that it is being stopped.
    celery_worker.safe_say = partial(_say, handler)


def _say(handler: Any, message: str, _: object = None) -> None:
    """Write a log line at once: in a handler of signals, the stream or its lock may be in use."""
    record = logging.LogRecord("celery", logging.INFO, "", 0, "%s", (message.strip(),), None)
    line = handler.format(record) + "\n"
    with suppress(OSError, ValueError):  # no file, or none any more
        os.write(handler.stream.fileno(), line.encode(errors="backslashreplace"))


def _add_task(record: logging.LogRecord) -> bool:
    """Name the Celery task that this thread runs. Celery's own lines about a task name it themselves."""
    request = current_task.request if current_task else None
    if request is not None and request.id is not None:
        record.task = request.id
    return True
