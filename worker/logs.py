"""The worker's log lines, which name the Celery task that they are from."""

from __future__ import annotations

import logging
from typing import TextIO

from celery import current_task

from binwatch import logs
from binwatch.settings import LogFormat


def configure(form: LogFormat, stream: TextIO | None = None) -> None:
    """Send all log lines of this process to `stream`, standard error if none is given."""
    logs.configure(form, stream, also=_add_task)


def _add_task(record: logging.LogRecord) -> bool:
    """Name the Celery task that this thread runs. Celery's own lines about a task name it themselves."""
    request = current_task.request if current_task else None
    if request is not None and request.id is not None:
        record.task = request.id
    return True
