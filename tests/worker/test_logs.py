"""Formats of log lines, with the task, bin and key that they concern."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from binwatch.logs import MAX_MESSAGE_CHARS, MAX_TRACEBACK_CHARS, JsonFormatter, TextFormatter
from worker.logs import _add_task


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("worker.test").makeRecord(
        "worker.test", logging.WARNING, "file.py", 1, message, arguments, None, extra=extra
    )


def test_json_lines_have_all_fields():
    line = json.loads(JsonFormatter().format(record("photo failed: %s", "größe\n", bin="00123", key="a/00123.jpg")))
    time = line.pop("time")
    assert time.endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "worker.test",
        "message": "photo failed: größe\n",
        "bin": "00123",
        "key": "a/00123.jpg",
    }


def test_json_lines_are_one_line_even_with_a_traceback():
    try:
        raise ValueError("odd\nvalue")
    except ValueError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()
    text = JsonFormatter().format(failed)
    assert "\n" not in text
    assert "ValueError: odd\nvalue" in json.loads(text)["error"]


def test_text_lines_end_with_the_context():
    assert TextFormatter().format(record("photo failed", bin="00123")).endswith("worker.test: photo failed bin=00123")
    assert TextFormatter().format(record("ready")).endswith("WARNING worker.test: ready")


def test_log_line_of_a_task_has_its_id():
    app = Celery("test", broker="memory://", set_as_current=False)
    records: list[logging.LogRecord] = []

    @app.task(name="look")
    def look() -> None:
        line = record("inside")
        _add_task(line)
        records.append(line)

    look.apply(task_id="an-id")
    outside = record("outside")
    _add_task(outside)
    assert [getattr(line, "task", None) for line in (*records, outside)] == ["an-id", None]


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_arguments_that_are_not_json(formatter):
    assert "object object" in formatter.format(record("%s", object(), bin=None))


ODD = [
    "a.jpg\n2026-11-20 08:00:00,000 ERROR worker: forged",
    "\x1b[2J\x1b[31mred",
    "\r\x85\u2028\u2029\x0b\x0c",
    "\u202egpj.a",
    "\udce9 \ud800",
    "\0\x07\x9b",
    "x" * 8_000_000,
]


@pytest.mark.parametrize("form", [JsonFormatter, TextFormatter])
@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_untrusted_text_stays_on_one_line(form: type[logging.Formatter], text: str) -> None:
    for one in (record("failed: %s", text), record(text), record("failed", key=text, bin=text)):
        line = form().format(one)
        assert line.isprintable()
        assert len(line.encode("utf-8")) < 12 * MAX_MESSAGE_CHARS
        assert "failed" in line or "WARNING" in line or json.loads(line)["level"] == "warning"


@pytest.mark.parametrize("form", [JsonFormatter, TextFormatter])
def test_traceback_is_indented_and_bounded(form: type[logging.Formatter]) -> None:
    try:
        raise ValueError("odd\n2026-11-20 08:00:00,000 ERROR worker: forged \x1b[31m" + "y" * 100_000 + " the end")
    except ValueError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()
    lines = form().format(failed).split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])
    assert len("".join(lines)) < 2 * MAX_TRACEBACK_CHARS
    text = json.loads(lines[0])["error"] if form is JsonFormatter else "\n".join(lines)
    assert "Traceback (most recent call last)" in text
    assert text.endswith(" the end")


def test_context_is_distinguishable_from_the_message() -> None:
    line = TextFormatter().format(record("photo failed", bin='a" key=b', key="c.jpg"))
    assert line.endswith(r'photo failed bin="a\" key=b" key=c.jpg')


@pytest.mark.parametrize("form", [JsonFormatter, TextFormatter])
def test_message_with_wrong_arguments_is_still_logged(form: type[logging.Formatter]) -> None:
    line = form().format(record("%d photos", "many"))
    assert "%d photos ('many',) (cannot be formatted" in line


def test_lines_below_the_level_are_dropped() -> None:
    program = (
        "import logging; from binwatch.settings import LogFormat, LogLevel; from worker.logs import configure\n"
        "configure(LogFormat.TEXT, LogLevel.WARNING)\n"
        "for level in (logging.INFO, logging.WARNING, logging.ERROR): logging.getLogger('a').log(level, 'line')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert [line.split()[2] for line in done.stderr.splitlines()] == ["WARNING", "ERROR"]


PROGRAM = """
import logging, sys, threading, warnings
from binwatch.settings import LogFormat
from worker.logs import configure
from celery.apps import worker
configure(LogFormat(sys.argv[1]))
for tag in range(65_535):
    warnings.warn(f"Corrupt EXIF data, tag {tag}\\x1b[31m\\n" + "x" * 9)
for name in ("celery.task", "celery.worker", "kombu", "uvicorn.error", "multiprocessing", "anyone"):
    logging.getLogger(name).error("of %s:\\nb\\x1b[31m", name)
worker.safe_say("worker: Warm shutdown (MainProcess)")
thread = threading.Thread(target=lambda: 1 / 0, name="intake")
thread.start()
thread.join()
raise KeyError("a\\nb")
"""


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_all_lines_of_a_process_have_the_format(form: str, encoding: str) -> None:
    """This includes lines of libraries, Python warnings and uncaught exceptions."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, form],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).decode(encoding).splitlines()
    if form == "json":
        messages = [json.loads(line)["message"] for line in lines]
    else:
        begun = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR|CRITICAL) [\w.]+: (.+)")
        result = [begun.fullmatch(line) for line in lines]
        assert all(match or line.startswith("    ") for match, line in zip(result, lines, strict=True))
        messages = [match[2] for match in result if match]
    assert len(messages) == 3 + 6 + 1 + 2
    assert "no more are shown from here" in messages[2]
    assert messages[9:] == [
        "worker: Warm shutdown (MainProcess)",
        "thread intake ended by an error",
        "ended by an error",
    ]


@pytest.mark.parametrize("form", ["json", "text"])
def test_last_line_of_a_command_has_the_format(form: str) -> None:
    program = (
        "import sys; from binwatch import command_line, logs; from binwatch.errors import BinwatchError\n"
        "def app():\n    logs.configure(logs.LogFormat(sys.argv[1]))\n    raise BinwatchError('\\x1b[31mno\\nqueue')\n"
        "command_line.run(app, 'worker')"
    )
    command = [sys.executable, "-c", program, form]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    if form == "json":
        assert json.loads(done.stderr)["message"] == "\x1b[31mno\nqueue"
    else:
        assert done.stderr == "error: \\x1b[31mno\nqueue\n"
