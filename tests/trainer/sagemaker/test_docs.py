"""docs/aws.md documents every option and command, and its example configuration is valid."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from trainer.sagemaker.commands import app
from trainer.sagemaker.options import EndpointConfig, JobConfig, SagemakerConfig, TuningConfig

PAGE = (Path(__file__).parents[3] / "docs" / "aws.md").read_text(encoding="utf-8")
TABLES: dict[str, type[BaseModel]] = {"job": JobConfig, "tuning": TuningConfig, "endpoint": EndpointConfig}


def _default(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, tuple | dict):
        return "none"
    if isinstance(value, int | str):
        return f"`{value}`" if value != "" else "empty"
    return "required"


@pytest.mark.parametrize(
    "row",
    [
        f"| `{table}.{name}` | {_default(option.default)} | {option.description} |"
        for table, options in TABLES.items()
        for name, option in options.model_fields.items()
    ],
)
def test_every_option_is_documented(row: str) -> None:
    assert row in PAGE


def test_every_user_command_is_documented() -> None:
    steps = {"compare", "container"}  # run by SageMaker
    names = {command.callback.__name__ for command in app.registered_commands if command.callback} - steps
    assert names == {"train", "tune", "pipeline", "deploy", "undeploy"}
    assert names <= set(re.findall(r"python -m trainer sagemaker (\w+)", PAGE))


def test_example_configuration_is_valid() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    filled = text.replace("arn:aws:iam::…:role/binwatch-SagemakerRole-…", "arn:aws:iam::123456789012:role/x")
    config = SagemakerConfig.model_validate(tomllib.loads(filled.replace("s3://binwatch-…/", "s3://binwatch-1/")))
    assert (config.job.spot, config.train.epochs, config.endpoint.name) == (True, 40, "bins")
