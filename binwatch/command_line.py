"""Running a command line: its errors and its exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, get_args

import typer

from binwatch.errors import BinwatchError
from binwatch.numbers import number
from binwatch.text import visible

_EXTRAS = {
    "onnxruntime": "cpu",
    "pillow_heif": "heic",
    "psycopg": "postgres",
    "pyarrow": "parquet",
    "python_calamine": "check",
    "sagemaker": "sagemaker",
    "xlsxwriter": "check",
}
"""Package → the extra that installs it, for packages that are not in the command's own extra."""
_LONGEST, _HEAD, _TAIL = 2_000, 1_400, 500
"""Characters of an error message that are printed: all of a message up to `_LONGEST`; of a longer one the start,
which names the file and the fault, and the end, which says what to do."""
SETTINGS_NOTE = (
    "Settings are environment variables BINWATCH_…: `binwatch settings` prints all, docs/settings.md explains them."
)
USAGE = 2
"""Exit status for wrong arguments."""
_OWN = frozenset({"binwatch", "demo", "monitor", "trainer", "worker"})


def run(app: Callable[[], object], extra: str, *, by_cause: bool = False) -> None:
    """Run `app`. A BinwatchError, or a missing package, ends it with one line on standard error and exit status 1.

    `extra`: the extra with which the command must be installed. `by_cause`: the exit status depends on the error.
    """
    try:
        check_app(app)
        _flushed(app)
    except BinwatchError as error:
        _end(str(error), error.exit_status if by_cause else 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OWN:
            raise
        extras = ",".join(dict.fromkeys([*extra.split(","), *filter(None, [_EXTRAS.get(package)])]))
        install = f"pip install -c requirements.lock '.[{extras}]'"
        _end(f"{package} is not installed; in Binwatch's repository: {install}", USAGE if by_cause else 1)


def _flushed(app: Callable[[], object]) -> None:
    """Run `app` and flush its output. If the reader of the output stops early, as `head` does, that is not an error."""
    ended: BaseException | None = None
    try:
        app()
    except BrokenPipeError:
        pass
    except BaseException as error:  # also SystemExit, so that its status is not lost if the flush fails
        ended = error
    try:
        if sys.stdout is not None:  # None after a shell's >&-
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit
    if ended is not None:
        raise ended


def name_settings(app: typer.Typer) -> None:
    """Add a note about settings to the help of each command of `app`."""
    for command in app.registered_commands:
        command.epilog = command.epilog or SETTINGS_NOTE
    for group in app.registered_groups:
        if group.typer_instance:
            name_settings(group.typer_instance)


def check_app(app: Callable[[], object]) -> None:
    """End the program if an argument is wrong in a way that `app` would accept."""
    if isinstance(app, typer.Typer):
        check_numbers(app, sys.argv[1:])


def check_numbers(app: typer.Typer, arguments: Sequence[str]) -> None:
    """End the program if a numeric option has a value that only Python accepts as a number, such as `1_0` for 10."""
    numeric = _numeric(typer.main.get_command(app))
    for argument, following in pairwise([*arguments, ""]):
        option, equals, value = argument.partition("=")
        text = value if equals else following
        if option in numeric and number(text) is None and _python_takes(text):
            _end(f"{option} {text!r} is not a number; write it in digits", USAGE)


def _numeric(command: Any) -> set[str]:
    """Names of the numeric options of all commands."""
    found = {name for parameter in command.params if _is_number(parameter) for name in parameter.opts}
    return found.union(*(_numeric(inner) for inner in getattr(command, "commands", {}).values()))


def _is_number(parameter: Any) -> bool:
    wanted = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    of_click = type(getattr(parameter, "type", None)).__name__  # typer before 0.29
    return bool({wanted, *get_args(wanted)} & {int, float}) or of_click.startswith(("Int", "Float"))


def _python_takes(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _end(message: str, status: int = 1) -> None:
    from binwatch import logs

    if len(message) > _LONGEST:  # the text of a stranger's file may be of any length
        left = len(message) - _HEAD - _TAIL
        message = f"{message[:_HEAD]} … ({left:,} characters left out) … {message[-_TAIL:]}"
    if logs.is_json():
        logging.getLogger("binwatch").critical("%s", message)
    else:
        print("\n".join(visible(line) for line in f"error: {message}".split("\n")), file=sys.stderr)
    sys.exit(status)
