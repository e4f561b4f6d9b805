"""The worker's log lines, with the id of their Celery task, and Celery's own lines, in the same format."""

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
"""Loggers to which Celery adds its own handlers, unless they have some."""


def configure(form: LogFormat, level: LogLevel = LogLevel.INFO, stream: TextIO | None = None) -> None:
    """Write log lines of this process, from `level` on, to `stream`; default: standard error."""
    handler = logs.configure(form, level, stream, log_filter=_add_task)
    for name in _CELERYS_OWN:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
    # Celery 5.7's signal handlers bypass all loggers, for example when it is being stopped.
    celery_worker.safe_say = partial(_say, handler)


def _say(handler: Any, message: str, _: object = None) -> None:
    """Write a log line directly to the file: in a signal handler, the stream or its lock may be in use."""
    record = logging.LogRecord("celery", logging.INFO, "", 0, "%s", (message.strip(),), None)
    line = handler.format(record) + "\n"
    with suppress(OSError, ValueError):  # not a file, or closed
        os.write(handler.stream.fileno(), line.encode(errors="backslashreplace"))


def _add_task(record: logging.LogRecord) -> bool:
    """Add the id of the Celery task that this thread runs. Celery's own lines about a task already name it."""
    request = current_task.request if current_task else None
    if request is not None and request.id is not None:
        record.task = request.id
    return True
