"""Logging of a worker: its own lines, with the id of the Celery task, and Celery's lines in the same format."""

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

_CELERY_LOGGERS = ("celery.task", "multiprocessing")
"""Loggers to which Celery adds its own handlers unless they have one."""


def configure(log_format: LogFormat, level: LogLevel = LogLevel.INFO, stream: TextIO | None = None) -> None:
    """Write the log lines of this process, from `level` on, to `stream`; default: standard error."""
    handler = logs.configure(log_format, level, stream, log_filter=_add_task)
    for name in _CELERY_LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
    # Celery 5.7's signal handlers bypass all loggers, for example when they stop the worker.
    celery_worker.safe_say = partial(_write_directly, handler)


def _write_directly(handler: Any, message: str, _: object = None) -> None:
    """Write a log line to the file descriptor: in a signal handler, the stream or its lock may be in use."""
    record = logging.LogRecord("celery", logging.INFO, "", 0, "%s", (message.strip(),), None)
    line = handler.format(record) + "\n"
    with suppress(OSError, ValueError):  # not a file, or already closed
        os.write(handler.stream.fileno(), line.encode(errors="backslashreplace"))


def _add_task(record: logging.LogRecord) -> bool:
    """Add the id of the Celery task that runs on this thread. Celery's own lines about a task already have it."""
    request = current_task.request if current_task else None
    if request is not None and request.id is not None:
        record.task = request.id
    return True
