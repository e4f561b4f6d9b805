"""Log lines, as text for people or as JSON for machines, with the task, bin and key that they concern.

Log lines contain external text: keys, file names, queue messages. So all lines of a process, including those of
libraries and Python's warnings, pass through one formatter: external text cannot start a new line or send control codes
to a terminal, and no line is longer than a few thousand characters.
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
"""Most characters of a message."""
MAX_VALUE_CHARS = 300
"""Most characters of a context value."""
MAX_TRACEBACK_CHARS = 8000
"""Most characters of a traceback; a longer one keeps its start (a quarter) and its end."""
_CONTEXT_FIELDS = ("task", "bin", "key")
"""Context values of a line, with the same names in both formats."""
_VERBOSE_LIBRARIES = ("alembic", "botocore", "boto3", "urllib3", "amqp", "uvicorn")
_MAX_WARNINGS_PER_LINE = 3
"""Most warnings from one line of code that are logged. One photo can cause 65,535 warnings of Pillow, one per tag."""


def configure(
    form: LogFormat,
    level: LogLevel = LogLevel.INFO,
    stream: TextIO | None = None,
    *,
    also: Callable[[logging.LogRecord], bool] | None = None,
) -> logging.Handler:
    """Write all log lines of this process to `stream` (default: standard error), also warnings and uncaught errors.

    `also` may add attributes to each record. Lines below `level` are omitted; libraries that log each request log only
    from `warning` on. Returns the handler.
    """
    handler = logging.StreamHandler(stream)
    if also is not None:
        handler.addFilter(also)
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else TextFormatter())
    least = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=least, handlers=[handler])
    for name in _VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addFilter(_RepeatedWarningFilter())
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    return handler


def is_json() -> bool:
    """Whether the lines of this process are JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.root.handlers)


class JsonFormatter(logging.Formatter):
    """One JSON object per line, in ASCII: time (UTC), level, logger, message and context values."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
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
    """Text for people: the message, then the context values. Only a traceback has more lines, each indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback if there is one."""
        time = self.formatTime(record, self.datefmt)
        line = f"{time} {record.levelname} {record.name}: {escape_unprintable(truncate(_format_message(record), MAX_MESSAGE_CHARS))}"
        line += "".join(
            f" {name}={_quote_if_needed(escape_unprintable(value))}" for name, value in _context_of(record).items()
        )
        if record.exc_info:
            traceback = _truncate_traceback(self.formatException(record.exc_info))
            line += "".join(f"\n    {escape_unprintable(part)}" for part in traceback.split("\n"))
        return line


def _format_message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # a library's wrong arguments must not lose the line
        return f"{record.msg} {record.args!r} (cannot be formatted: {error})"


def _context_of(record: logging.LogRecord) -> dict[str, str]:
    known = ((name, getattr(record, name, None)) for name in _CONTEXT_FIELDS)
    return {name: truncate(str(value), MAX_VALUE_CHARS) for name, value in known if value is not None}


def _quote_if_needed(value: str) -> str:
    """The value, in quotes if its end would be unclear."""
    plain = value and not {" ", '"', "="}.intersection(value)
    return value if plain else '"' + value.replace('"', '\\"') + '"'


def _truncate_traceback(traceback: str) -> str:
    if len(traceback) <= MAX_TRACEBACK_CHARS:
        return traceback
    start, end = MAX_TRACEBACK_CHARS // 4, MAX_TRACEBACK_CHARS - MAX_TRACEBACK_CHARS // 4
    left_out = len(traceback) - start - end
    return f"{traceback[:start]}…\n({left_out:,} characters)\n…{traceback[-end:]}"


class _RepeatedWarningFilter(logging.Filter):
    """Passes only the first few warnings from each line of code."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the warning is logged."""
        text = _format_message(record)
        # "path:line: Category: text", then the line of code.
        place = ":".join(text.split(":", 3)[:3])
        self._seen[place] += 1
        if self._seen[place] == _MAX_WARNINGS_PER_LINE:
            record.msg, record.args = f"{text.strip()} (no more are shown from here)", ()
        return self._seen[place] <= _MAX_WARNINGS_PER_LINE


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger("binwatch").critical("ended by an error", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(args: Any) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        name = args.thread.name if args.thread else "unknown"
        found = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger("binwatch").critical("thread %s ended by an error", name, exc_info=found)
