"""The options of a configuration's table as options of a command, so that each is defined only once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel

Command = TypeVar("Command", bound=Callable[..., None])

BOUNDS = (("min", "ge"), ("max", "le"))
"""typer's name of a bound, and pydantic's: typer checks bounds before the table does."""


def with_options_of(table: type[BaseModel], flags: Mapping[str, str]) -> Callable[[Command], Command]:
    """Replace the `**options` of a command by those of `table`. `flags` are those that differ from its name."""

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        kept = [each for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        command.__signature__ = own.replace(parameters=[*kept, *_parameters(table, flags)])  # type: ignore[attr-defined]
        return command

    return decorate


def _parameters(table: type[BaseModel], flags: Mapping[str, str]) -> Iterator[inspect.Parameter]:
    for name, field in table.model_fields.items():
        option = typer.Option(
            flags.get(name, f"--{name.replace('_', '-')}"), help=field.description, show_default=bool(field.default),
            **{bound: getattr(each, of) for bound, of in BOUNDS for each in field.metadata if hasattr(each, of)},
        )  # fmt: skip
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[field.annotation, option],
        )
