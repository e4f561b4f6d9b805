"""The epilog of `fit --help`: examples, and every option of --set and --config."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainer.config import Config

EXAMPLES = (
    "python -m trainer fit --photos photos --index index.csv --out runs/first",
    "python -m trainer fit --photos photos --out runs/try --epochs 1 --set model.architecture=resnet18"
    " --set model.weights=none --set data.size=64",
    "python -m trainer fit --config run.toml --set train.learning_rate=0.0005 --out runs/second",
    "python -m trainer fit --out runs/first --resume --epochs 20",
)


def options() -> Iterator[tuple[str, FieldInfo]]:
    """Yield the name and field of every option, in the order of the configuration."""
    for section, table in Config.model_fields.items():
        if isinstance(table.annotation, type) and issubclass(table.annotation, BaseModel):
            for name, option in table.annotation.model_fields.items():
                yield f"{section}.{name}", option


def format_default(value: object) -> str:
    """Format a default as --set accepts it, or as "empty", "none" or "required" if there is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | str):
        return str(value) if value != "" else "empty"
    return "none" if value in ((), None) else "required"


def epilog() -> str:
    """Return the examples and a line for each option."""
    lines = [f"{name} ({format_default(option.default)}): {option.description}" for name, option in options()]
    heading = "Options of --set and of the tables in --config, with their defaults:"
    return "\n".join(["Examples:", *EXAMPLES, "", heading, *lines])
