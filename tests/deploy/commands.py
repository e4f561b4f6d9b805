"""Whether commands that files of deploy/ and pages name are commands of Binwatch, by its own argument parsers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer

from binwatch.__main__ import SUBCOMMANDS


def check_command(words: Sequence[str]) -> None:
    """Raise AssertionError unless `worker run`, say, is a command with such options. Nothing is run."""
    part, *rest = words
    found: Any = typer.main.get_command(getattr(import_module(SUBCOMMANDS[part].module), SUBCOMMANDS[part].app))
    while rest and not rest[0].startswith("-") and hasattr(found, "commands"):
        assert rest[0] in found.commands, f"{' '.join(words)}: there is no command {rest[0]!r}"
        found = found.commands[rest.pop(0)]
    assert not hasattr(found, "commands"), f"{' '.join(words)}: no command is named"
    options = {name for parameter in found.params for name in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= options, f"{' '.join(words)}: no such option"
