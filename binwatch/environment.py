"""Base class of all settings: each field is an environment variable, read once and validated strictly."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from binwatch.numbers import parse_float

PREFIX = "BINWATCH_"


class EnvironmentSettings(BaseSettings):
    """Settings of one part of Binwatch. A field that is itself such a class has variables with its own prefix."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_number(cls, value: object, info: ValidationInfo) -> object:
        annotation = str(cls.model_fields[info.field_name or ""].annotation)
        is_numeric = "int" in annotation or "float" in annotation
        if isinstance(value, str) and is_numeric and parse_float(value) is None:
            raise ValueError("expected a number, in digits")  # pydantic accepts 1_0 as 10
        return value

    @classmethod
    def variables(cls) -> dict[str, FieldInfo]:
        """Return environment variable → field, including those of nested settings."""
        variables: dict[str, FieldInfo] = {}
        for name, field in cls.model_fields.items():
            annotation = field.annotation
            if isinstance(annotation, type) and issubclass(annotation, EnvironmentSettings):
                variables |= annotation.variables()
            else:
                variables[cls.variable(name)] = field
        return variables

    @classmethod
    def variable(cls, name: str) -> str:
        """Return the environment variable of a field."""
        return f"{cls.model_config.get('env_prefix')}{name.upper()}"

    def values(self) -> dict[str, Any]:
        """Return environment variable → value, including those of nested settings."""
        values: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            values |= value.values() if isinstance(value, EnvironmentSettings) else {self.variable(name): value}
        return values
