"""Turns the options of a configuration table into command-line options, so that each is defined only once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel

Command = TypeVar("Command", bound=Callable[..., None])

BOUNDS = (("min", "ge"), ("max", "le"))
"""Names of each bound in typer and in pydantic, so that typer checks the bounds itself."""


def with_options_of(table: type[BaseModel], flags: Mapping[str, str]) -> Callable[[Command], Command]:
    """Replace the `**options` of a command with the options of `table`.

    A flag is `--` and the option's name, unless `flags` maps the name to another flag.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        command.__signature__ = signature.replace(parameters=[*own, *_parameters(table, flags)])  # type: ignore[attr-defined]
        return command

    return decorate


def _parameters(table: type[BaseModel], flags: Mapping[str, str]) -> Iterator[inspect.Parameter]:
    for name, field in table.model_fields.items():
        option = typer.Option(
            flags.get(name, f"--{name.replace('_', '-')}"), help=field.description, show_default=bool(field.default),
            **{
                bound: getattr(constraint, attribute)
                for bound, attribute in BOUNDS
                for constraint in field.metadata
                if hasattr(constraint, attribute)
            },
        )  # fmt: skip
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[field.annotation, option],
        )
