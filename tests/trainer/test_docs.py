from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from trainer.config import Config

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def options() -> list[str]:
    return [
        f"| `{section}.{name}` | {_default(option.default)} | {option.description} |"
        for section, table in Config.model_fields.items()
        if isinstance(table.annotation, type) and issubclass(table.annotation, BaseModel)
        for name, option in table.annotation.model_fields.items()
    ]


def _default(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float | str):
        return f"`{value}`" if value != "" else "empty"
    return "none" if value in ((), None) else "required"


@pytest.mark.parametrize("row", options())
def test_every_option_is_documented_with_its_default_and_meaning(row: str) -> None:
    assert row in PAGE
