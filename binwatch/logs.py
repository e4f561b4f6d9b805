"""Log lines: for people, or as JSON for machines, with what each is about."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from binwatch.settings import LogFormat

_CONTEXT = ("task", "bin", "key")
"""What a line may say beside its message, under the same names in both formats."""
_CHATTY = ("alembic", "botocore", "boto3", "urllib3", "amqp", "uvicorn")


def configure(
    form: LogFormat, stream: TextIO | None = None, *, also: Callable[[logging.LogRecord], bool] | None = None
) -> None:
    """Send all log lines of this process to `stream`, standard error if none is given; `also` may add to each."""
    handler = logging.StreamHandler(stream)
    if also is not None:
        handler.addFilter(also)
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_context(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: the message, then what else is known."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name is logging's)
        """The line, without a traceback."""
        context = "".join(f" {name}={value}" for name, value in _context(record).items())
        return super().formatMessage(record) + context


def _context(record: logging.LogRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in _CONTEXT if getattr(record, name, None) is not None}
