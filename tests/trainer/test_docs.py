"""docs/training.md documents every option of `fit` and `prepare`."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.cli.fit_help import format_default, options
from trainer.prepare.config import PrepareConfig

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def rows() -> list[str]:
    return [f"| `{name}` | {_default(option.default)} | {option.description} |" for name, option in options()]


def _default(value: object) -> str:
    is_toml = isinstance(value, bool | int | float | str) and value != ""
    return f"`{format_default(value)}`" if is_toml else format_default(value)


@pytest.mark.parametrize("row", rows())
def test_every_option_is_documented(row: str) -> None:
    assert row in PAGE


@pytest.mark.parametrize("name", PrepareConfig.model_fields)
def test_every_prepare_option_is_documented(name: str) -> None:
    flag = "--from" if name == "source" else f"--{name.replace('_', '-')}"
    assert flag in PAGE.partition("## prepare")[2].partition("## fit")[0]
