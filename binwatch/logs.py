"""Log lines: for people, or as JSON for machines, with what each is about.

Much in them was written by others: keys, file names, messages of queues. So all lines of a process, those of libraries
and Python's warnings included, go through one formatter: nothing in it can begin a line, move a cursor or colour it,
and no line is longer than a few thousand characters.
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
from binwatch.text import shortened, visible

MAX_MESSAGE = 2000
"""Characters of a message. Whatever says more, the rest helps no one."""
MAX_VALUE = 300
"""Characters of a value beside it."""
MAX_TRACEBACK = 8000
"""Characters of a traceback: of a longer one, its first fourth and the rest from its end."""
_CONTEXT = ("task", "bin", "key")
"""What a line may say beside its message, under the same names in both formats."""
_CHATTY = ("alembic", "botocore", "boto3", "urllib3", "amqp", "uvicorn")
_OF_ONE_PLACE = 3
"""Warnings from one line of code that are shown. A photo can have Pillow warn of each of its 65,535 tags."""


def configure(
    form: LogFormat,
    level: LogLevel = LogLevel.INFO,
    stream: TextIO | None = None,
    *,
    also: Callable[[logging.LogRecord], bool] | None = None,
) -> logging.Handler:
    """Send all log lines of this process to `stream`, standard error if none is given; `also` may add to each.

    So are Python's warnings, and errors that nothing catches. Lines below `level` are left out, and of libraries that
    log each request those below a warning. Returns the handler.
    """
    handler = logging.StreamHandler(stream)
    if also is not None:
        handler.addFilter(also)
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else TextFormatter())
    least = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=least, handlers=[handler])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addFilter(_FirstOfEachPlace())
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    return handler


def is_json() -> bool:
    """Whether the lines of this process are JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.root.handlers)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: time (UTC), level, logger, message, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shortened(_message(record), MAX_MESSAGE),
            **_context(record),
        }
        if record.exc_info:
            line["error"] = _bounded(self.formatException(record.exc_info))
        return json.dumps(line)  # in ASCII, any stream can take it, and nothing in it ends a line


class TextFormatter(logging.Formatter):
    """The same for people: the message, then what else is known. Only a traceback has more lines, each indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback if there is one."""
        time = self.formatTime(record, self.datefmt)
        line = f"{time} {record.levelname} {record.name}: {visible(shortened(_message(record), MAX_MESSAGE))}"
        line += "".join(f" {name}={_quoted(visible(value))}" for name, value in _context(record).items())
        if record.exc_info:
            traceback = _bounded(self.formatException(record.exc_info))
            line += "".join(f"\n    {visible(part)}" for part in traceback.split("\n"))
        return line


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # a library's mistake must not cost the line
        return f"{record.msg} {record.args!r} (cannot be formatted: {error})"


def _context(record: logging.LogRecord) -> dict[str, str]:
    known = ((name, getattr(record, name, None)) for name in _CONTEXT)
    return {name: shortened(str(value), MAX_VALUE) for name, value in known if value is not None}


def _quoted(value: str) -> str:
    """In quotes where it would not be clear where it ends."""
    plain = value and not {" ", '"', "="}.intersection(value)
    return value if plain else '"' + value.replace('"', '\\"') + '"'


def _bounded(traceback: str) -> str:
    if len(traceback) <= MAX_TRACEBACK:
        return traceback
    start, end = MAX_TRACEBACK // 4, MAX_TRACEBACK - MAX_TRACEBACK // 4
    left_out = len(traceback) - start - end
    return f"{traceback[:start]}…\n({left_out:,} characters)\n…{traceback[-end:]}"


class _FirstOfEachPlace(logging.Filter):
    """Lets the first few warnings from each line of code through."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the warning is shown."""
        text = _message(record)
        # "path:line: Category: text", then the line of code.
        place = ":".join(text.split(":", 3)[:3])
        self._seen[place] += 1
        if self._seen[place] == _OF_ONE_PLACE:
            record.msg, record.args = f"{text.strip()} (no more are shown from here)", ()
        return self._seen[place] <= _OF_ONE_PLACE


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
