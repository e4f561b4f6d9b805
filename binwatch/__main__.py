"""The command `binwatch`: finds the command line of the part that is asked for, and leaves the rest to it.

By name, so that nothing is imported that is not asked for: the trainer takes seconds, and a part may not be installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

from binwatch import command_line


class Part(NamedTuple):
    """A command: where it is, what it is installed with, and what it is for."""

    module: str
    app: str
    extra: str
    summary: str


PARTS = {
    "check": Part("worker.check.command", "app", "check,cpu", "list bins whose photos do not match an inventory file"),
    "worker": Part("worker.__main__", "cli", "worker,cpu", "count photos from a queue, or from files (count)"),
    "monitor": Part("monitor.__main__", "app", "monitor", "serve pages and metrics, enter audits and quantities"),
    "trainer": Part("trainer.__main__", "app", "trainer", "train, evaluate and promote models"),
}
_HELP = {"-h", "--help"}


def main() -> None:
    """Run the part that the first argument names."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in _HELP:
        print(_usage())
    elif name == "--version":
        print(f"binwatch {version('binwatch')}")
    elif name in PARTS:
        part = PARTS[name]
        sys.argv = [f"binwatch {name}", *("--help" if argument == "-h" else argument for argument in rest)]
        command_line.run(lambda: _app(part)(prog_name=sys.argv[0]), part.extra, by_cause=True)
    else:
        print(f"error: there is no command {name!r}\n\n{_usage()}", file=sys.stderr)
        sys.exit(command_line.USAGE)


def _app(part: Part) -> Callable[..., object]:
    app: Callable[..., object] = getattr(import_module(part.module), part.app)
    command_line.check_app(app)
    return app


def _usage() -> str:
    commands = "\n".join(f"  {name:8} {part.summary}" for name, part in PARTS.items())
    return (
        f"Usage: binwatch COMMAND [ARGUMENTS]\n\n{commands}\n\n  -h, --help   also after a command\n  --version\n\n"
        "Exit status: 0 on success, 1 on failure, 2 for an invalid setting, option or file, 3 for an outage."
    )


if __name__ == "__main__":
    main()
