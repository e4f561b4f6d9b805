"""The options of a configuration's table as options of a command, so that each is written down once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Command = TypeVar("Command", bound=Callable[..., None])


def with_options_of(table: type[BaseModel], flags: Mapping[str, str]) -> Callable[[Command], Command]:
    """Give a command with `**options` those of `table`. `flags` names those whose flag is not their own name."""

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
            **_bounds(field),
        )  # fmt: skip
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[field.annotation, option],
        )


def _bounds(field: FieldInfo) -> dict[str, Any]:
    """What typer says before the table does."""
    kinds = {"min": "ge", "max": "le"}
    return {name: getattr(each, of) for name, of in kinds.items() for each in field.metadata if hasattr(each, of)}
