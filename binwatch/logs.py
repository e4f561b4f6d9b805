"""Formats log lines as text for people or as JSON for machines, with the task, bin and key that they concern.

Log lines contain external text: keys, file names, queue messages. Therefore all lines of a process, including those of
libraries and Python's warnings, pass through one formatter: external text cannot start a new line or send control codes
to a terminal, and messages, context values and tracebacks are truncated.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from binwatch.settings import LogFormat, LogLevel
from binwatch.text import escape_unprintable, truncate

MAX_MESSAGE_CHARS = 2000
"""Maximum length of a message."""
MAX_VALUE_CHARS = 300
"""Maximum length of a context value."""
MAX_TRACEBACK_CHARS = 8000
"""Maximum length of a traceback. Of a longer one, the start (a quarter) and the end are kept."""
_CONTEXT_FIELDS = ("task", "bin", "key")
"""Names of the context values of a line, the same in both formats."""
_VERBOSE_LIBRARIES = ("alembic", "botocore", "boto3", "urllib3", "amqp", "uvicorn")
_MAX_WARNINGS_PER_LINE = 3
"""Maximum number of warnings logged for a line of code. One photo can cause 65,535 warnings in Pillow, one per tag."""


def configure(
    log_format: LogFormat,
    level: LogLevel = LogLevel.INFO,
    stream: TextIO | None = None,
    *,
    log_filter: Callable[[logging.LogRecord], bool] | None = None,
) -> logging.Handler:
    """Write all log lines of this process, including warnings and uncaught errors, to `stream` (default: stderr).

    `log_filter` may add attributes to each record. Lines below `level` are omitted; libraries that log each request log
    only from `warning` on. Returns the handler.
    """
    handler = logging.StreamHandler(stream)
    if log_filter is not None:
        handler.addFilter(log_filter)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    min_level = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=min_level, handlers=[handler])
    for name in _VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(max(min_level, logging.WARNING))
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addFilter(_RepeatedWarningFilter())
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    return handler


def is_json() -> bool:
    """Return whether this process logs JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.root.handlers)


class JsonFormatter(logging.Formatter):
    """One JSON object per line, in ASCII: time (UTC), level, logger, message and context values."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": truncate(_format_message(record), MAX_MESSAGE_CHARS),
            **_context_of(record),
        }
        if record.exc_info:
            line["error"] = _truncate_traceback(self.formatException(record.exc_info))
        return json.dumps(line)  # ASCII works in any encoding, and has no line breaks


class TextFormatter(logging.Formatter):
    """Text for people: one line with the message and the context values, then the lines of a traceback, indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as a line, followed by its traceback if there is one."""
        time = self.formatTime(record, self.datefmt)
        message = escape_unprintable(truncate(_format_message(record), MAX_MESSAGE_CHARS))
        line = f"{time} {record.levelname} {record.name}: {message}"
        for name, value in _context_of(record).items():
            line += f" {name}={_quote_if_needed(escape_unprintable(value))}"
        if record.exc_info:
            traceback = _truncate_traceback(self.formatException(record.exc_info))
            line += "".join(f"\n    {escape_unprintable(part)}" for part in traceback.split("\n"))
        return line


def _format_message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # the line must not be lost because a library passes wrong arguments
        return f"{record.msg} {record.args!r} (cannot be formatted: {error})"


def _context_of(record: logging.LogRecord) -> dict[str, str]:
    values = ((name, getattr(record, name, None)) for name in _CONTEXT_FIELDS)
    return {name: truncate(str(value), MAX_VALUE_CHARS) for name, value in values if value is not None}


def _quote_if_needed(value: str) -> str:
    """Quote a value if its end would otherwise be unclear."""
    is_plain = value and not {" ", '"', "="}.intersection(value)
    return value if is_plain else '"' + value.replace('"', '\\"') + '"'


def _truncate_traceback(traceback: str) -> str:
    if len(traceback) <= MAX_TRACEBACK_CHARS:
        return traceback
    start, end = MAX_TRACEBACK_CHARS // 4, MAX_TRACEBACK_CHARS - MAX_TRACEBACK_CHARS // 4
    omitted = len(traceback) - start - end
    return f"{traceback[:start]}…\n({omitted:,} characters)\n…{traceback[-end:]}"


class _RepeatedWarningFilter(logging.Filter):
    """Passes only the first few warnings from each line of code."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the warning is logged."""
        text = _format_message(record)
        # "path:line: Category: text", then the line of code.
        location = ":".join(text.split(":", 3)[:3])
        self._counts[location] += 1
        if self._counts[location] == _MAX_WARNINGS_PER_LINE:
            record.msg, record.args = f"{text.strip()} (no more are shown from here)", ()
        return self._counts[location] <= _MAX_WARNINGS_PER_LINE


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger("binwatch").critical("ended by an error", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(args: Any) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        name = args.thread.name if args.thread else "unknown"
        exc_info = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger("binwatch").critical("thread %s ended by an error", name, exc_info=exc_info)
