"""Base of all settings classes: each field is an environment variable, read once and validated strictly."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from binwatch.numbers import parse_float

PREFIX = "BINWATCH_"


class EnvironmentSettings(BaseSettings):
    """Settings of one part of Binwatch. A field of such a class has variables with that class's prefix."""

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
    def _plain_number(cls, value: object, info: ValidationInfo) -> object:
        wanted = str(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, str) and any(kind in wanted for kind in ("int", "float")) and parse_float(value) is None:
            raise ValueError("expected a number, in digits")  # pydantic accepts 1_0 as 10
        return value

    @classmethod
    def variables(cls) -> dict[str, FieldInfo]:
        """Variable → field."""
        found: dict[str, FieldInfo] = {}
        for name, field in cls.model_fields.items():
            part = field.annotation
            if isinstance(part, type) and issubclass(part, EnvironmentSettings):
                found |= part.variables()
            else:
                found[cls.variable(name)] = field
        return found

    @classmethod
    def variable(cls, name: str) -> str:
        """Name of a field's variable."""
        return f"{cls.model_config.get('env_prefix')}{name.upper()}"

    def values(self) -> dict[str, Any]:
        """Variable → value."""
        found: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            found |= value.values() if isinstance(value, EnvironmentSettings) else {self.variable(name): value}
        return found
