"""The command `binwatch`: runs the command line of one package, given by the first argument.

Only that package is imported: the trainer takes seconds to import, and a package may not be installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import typer

from binwatch import command_line
from binwatch.environment import PREFIX
from binwatch.settings import LogLevel
from binwatch.version import version


class Subcommand(NamedTuple):
    """A subcommand: its module, the name of its app, the extra that installs it, and a summary for the help."""

    module: str
    app: str
    extra: str
    summary: str


SUBCOMMANDS = {
    "check": Subcommand(
        "worker.check.command", "app", "check,cpu", "list bins whose photos do not match an inventory file"
    ),
    "worker": Subcommand("worker.__main__", "cli", "worker,cpu", "count photos from a queue, or from files (count)"),
    "monitor": Subcommand("monitor.__main__", "app", "monitor", "serve pages and metrics, enter audits and quantities"),
    "trainer": Subcommand("trainer.__main__", "app", "trainer", "train, evaluate and promote models"),
    "settings": Subcommand("binwatch.settings_command", "app", "worker", "print all settings and their values here"),
}
_HELP_OPTIONS = {"-h", "--help"}
_COMPLETION_OPTIONS = {"--install-completion", "--show-completion"}
_LOG_LEVEL_OPTION, _QUIET_OPTIONS = "--log-level", {"-q", "--quiet"}
_COMPLETION_VARIABLE = "_BINWATCH_COMPLETE"
"""Environment variable with which a shell's completion script calls this command (Typer's protocol)."""


def main() -> None:
    """Run the subcommand that the first argument names."""
    name, *rest = _apply_log_options(sys.argv[1:]) or ["--help"]
    if name in _COMPLETION_OPTIONS or _COMPLETION_VARIABLE in os.environ:
        # The command line up to the cursor, as the shell's completion script passes it.
        typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
        _combined_app(typed.split()[1:2])(prog_name="binwatch")
    elif name in _HELP_OPTIONS:
        print(_usage())
    elif name == "--version":
        print(f"binwatch {version()}")
    elif name in SUBCOMMANDS:
        subcommand = SUBCOMMANDS[name]
        sys.argv = [f"binwatch {name}", *("--help" if argument == "-h" else argument for argument in rest)]
        command_line.run(lambda: _load_app(subcommand)(prog_name=sys.argv[0]), subcommand.extra, status_by_error=True)
    else:
        print(f"error: there is no command {name!r}\n\n{_usage()}", file=sys.stderr)
        sys.exit(command_line.USAGE_STATUS)


def _apply_log_options(arguments: list[str]) -> list[str]:
    """Set BINWATCH_LOG_LEVEL by a leading `--log-level LEVEL` or `--quiet`; returns the remaining arguments."""
    option, equals, level = arguments[0].partition("=") if arguments else ("", "", "")
    if option in _QUIET_OPTIONS:
        os.environ[f"{PREFIX}LOG_LEVEL"] = LogLevel.WARNING
        return arguments[1:]
    if option != _LOG_LEVEL_OPTION:
        return arguments
    os.environ[f"{PREFIX}LOG_LEVEL"] = level if equals else "".join(arguments[1:2])
    return arguments[1 if equals else 2 :]


def _load_app(subcommand: Subcommand) -> Callable[..., object]:
    app: Callable[..., object] = getattr(import_module(subcommand.module), subcommand.app)
    command_line.check_arguments(app)
    return app


def _combined_app(loaded: Sequence[str]) -> typer.Typer:
    """Combine all subcommands in one application, for completion. Only those in `loaded` have their own commands."""
    combined = typer.Typer(name="binwatch")
    for name, subcommand in SUBCOMMANDS.items():
        app = getattr(import_module(subcommand.module), subcommand.app) if name in loaded else typer.Typer()
        if app.registered_groups or len(app.registered_commands) > 1:
            combined.add_typer(app, name=name, help=subcommand.summary)
        else:
            callback: Any = next((command.callback for command in app.registered_commands), lambda: None)
            combined.command(name, help=subcommand.summary)(callback)
    return combined


def _usage() -> str:
    commands = "\n".join(f"  {name:8} {subcommand.summary}" for name, subcommand in SUBCOMMANDS.items())
    return (
        f"Usage: binwatch [--quiet | --log-level LEVEL] COMMAND [ARGUMENTS]\n\n{commands}\n\n"
        "  -h, --help   also after a command\n  --version\n"
        "  -q, --quiet  print results, warnings and errors only: the same as --log-level warning\n"
        "  --log-level  debug, info, warning or error, instead of BINWATCH_LOG_LEVEL\n"
        "  --install-completion, --show-completion   complete commands and options on TAB in this shell\n\n"
        "Exit status: 0 on success, 1 on failure, 2 for an invalid setting, option or file, 3 for an outage."
    )


if __name__ == "__main__":
    main()
