"""Log lines name the task, the bin and the key that they are about."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from celery import Celery

from binwatch.logs import JsonFormatter, TextFormatter
from worker.logs import _add_task


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("worker.test").makeRecord(
        "worker.test", logging.WARNING, "file.py", 1, message, arguments, None, extra=extra
    )


def test_json_lines_hold_what_is_known():
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


def test_text_lines_end_with_what_is_known():
    assert TextFormatter().format(record("photo failed", bin="00123")).endswith("worker.test: photo failed bin=00123")
    assert TextFormatter().format(record("ready")).endswith("WARNING worker.test: ready")


def test_a_line_from_inside_a_task_names_it():
    app = Celery("test", broker="memory://", set_as_current=False)
    seen: list[logging.LogRecord] = []

    @app.task(name="look")
    def look() -> None:
        line = record("inside")
        _add_task(line)
        seen.append(line)

    look.apply(task_id="an-id")
    outside = record("outside")
    _add_task(outside)
    assert [getattr(line, "task", None) for line in (*seen, outside)] == ["an-id", None]


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_arguments_that_are_no_json_do_no_harm(formatter):
    assert "object object" in formatter.format(record("%s", object(), bin=None))
