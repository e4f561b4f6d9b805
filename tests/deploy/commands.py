"""Checks commands in deploy/ and in the docs against Binwatch's own argument parsers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer

from binwatch.__main__ import SUBCOMMANDS


def check_command(words: Sequence[str]) -> None:
    """Raise AssertionError unless `words`, such as `worker run`, are a command with these options. Nothing is run."""
    subcommand, *rest = words
    command: Any = typer.main.get_command(
        getattr(import_module(SUBCOMMANDS[subcommand].module), SUBCOMMANDS[subcommand].app)
    )
    while rest and not rest[0].startswith("-") and hasattr(command, "commands"):
        assert rest[0] in command.commands, f"{' '.join(words)}: there is no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    assert not hasattr(command, "commands"), f"{' '.join(words)}: no command is named"
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= options, f"{' '.join(words)}: no such option"
