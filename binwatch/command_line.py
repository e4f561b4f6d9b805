"""Runs a command line: checks its arguments, prints its errors and sets its exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, get_args

import typer

from binwatch.errors import BinwatchError
from binwatch.numbers import parse_float
from binwatch.text import escape_unprintable

_EXTRA_OF_PACKAGE = {
    "onnxruntime": "cpu",
    "pillow_heif": "heic",
    "psycopg": "postgres",
    "pyarrow": "parquet",
    "python_calamine": "check",
    "sagemaker": "sagemaker",
    "xlsxwriter": "check",
}
"""Optional package → the extra that installs it, for packages that the command's own extra may not include."""
_MAX_ERROR_CHARS, _ERROR_HEAD_CHARS, _ERROR_TAIL_CHARS = 2_000, 1_400, 500
"""Maximum length of a printed error message. Of a longer one, the head (which names the file and the fault) and the
tail (which says what to do) are printed."""
SETTINGS_NOTE = (
    "Settings are environment variables BINWATCH_…: `binwatch settings` prints all, docs/settings.md explains them."
)
USAGE_STATUS = 2
"""Exit status for invalid arguments."""
_OWN_PACKAGES = frozenset({"binwatch", "demo", "monitor", "trainer", "worker"})


def run(app: Callable[[], object], extra: str, *, status_by_error: bool = False) -> None:
    """Run `app`. A BinwatchError or a missing package is printed as one line on standard error, with exit status 1.

    `extra`: the extra that installs the command. `status_by_error`: use the error's own exit status instead of 1.
    """
    try:
        check_arguments(app)
        _run_and_flush(app)
    except BinwatchError as error:
        _exit_with_error(str(error), error.exit_status if status_by_error else 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OWN_PACKAGES:
            raise
        extras = ",".join(dict.fromkeys([*extra.split(","), *filter(None, [_EXTRA_OF_PACKAGE.get(package)])]))
        install = f"pip install -c requirements.lock '.[{extras}]'"
        status = USAGE_STATUS if status_by_error else 1
        _exit_with_error(f"{package} is not installed; in Binwatch's repository: {install}", status)


def _run_and_flush(app: Callable[[], object]) -> None:
    """Run `app` and flush its output. A reader that closes the pipe early, such as `head`, is not an error."""
    raised: BaseException | None = None
    try:
        app()
    except BrokenPipeError:
        pass
    except BaseException as error:  # also SystemExit, so that its status is not lost if the flush fails
        raised = error
    try:
        if sys.stdout is not None:  # None if the shell closed it with >&-
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit
    if raised is not None:
        raise raised


def add_settings_note(app: typer.Typer) -> None:
    """Add a note about settings to the help of each command of `app`."""
    for command in app.registered_commands:
        command.epilog = command.epilog or SETTINGS_NOTE
    for group in app.registered_groups:
        if group.typer_instance:
            add_settings_note(group.typer_instance)


def check_arguments(app: Callable[[], object]) -> None:
    """Exit if the command line has an invalid argument that `app` would accept."""
    if isinstance(app, typer.Typer):
        check_numbers(app, sys.argv[1:])


def check_numbers(app: typer.Typer, arguments: Sequence[str]) -> None:
    """Exit if a numeric option has a value that only Python accepts as a number, such as `1_0` for 10."""
    numeric = _numeric_options(typer.main.get_command(app))
    for argument, following in pairwise([*arguments, ""]):
        option, equals, value = argument.partition("=")
        text = value if equals else following
        if option in numeric and parse_float(text) is None and _is_python_float(text):
            _exit_with_error(f"{option} {text!r} is not a number; write it in digits", USAGE_STATUS)


def _numeric_options(command: Any) -> set[str]:
    """Names of the numeric options of a command and of its subcommands."""
    names = {name for parameter in command.params if _is_numeric(parameter) for name in parameter.opts}
    return names.union(*(_numeric_options(child) for child in getattr(command, "commands", {}).values()))


def _is_numeric(parameter: Any) -> bool:
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    click_type = type(getattr(parameter, "type", None)).__name__  # for typer before 0.29
    return bool({annotation, *get_args(annotation)} & {int, float}) or click_type.startswith(("Int", "Float"))


def _is_python_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _exit_with_error(message: str, status: int = 1) -> None:
    from binwatch import logs

    if len(message) > _MAX_ERROR_CHARS:  # an external file may contain texts of any length
        omitted = len(message) - _ERROR_HEAD_CHARS - _ERROR_TAIL_CHARS
        message = f"{message[:_ERROR_HEAD_CHARS]} … ({omitted:,} characters left out) … {message[-_ERROR_TAIL_CHARS:]}"
    if logs.is_json():
        logging.getLogger("binwatch").critical("%s", message)
    else:
        print("\n".join(escape_unprintable(line) for line in f"error: {message}".split("\n")), file=sys.stderr)
    sys.exit(status)
