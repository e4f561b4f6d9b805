"""Checks of dashboards against the types of Grafana's SDK: unknown fields and values of the wrong type."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from pydantic import ConfigDict, TypeAdapter, ValidationError

_CONFIG = ConfigDict(arbitrary_types_allowed=True)
DATA_SOURCE_FIELDS = {"step", "titleFormat"}
"""Annotation fields of the Prometheus data source, which the SDK does not know."""


def faults(dashboard: dict[str, Any]) -> list[str]:
    """Return the fields of a dashboard that Grafana would ignore or misread, each with its path."""
    register_default_plugins()
    parsed = Dashboard.from_json(dashboard)
    encoded = json.loads(json.dumps(parsed, cls=JSONEncoder))
    return [*_ignored_fields(dashboard, encoded, ""), *_type_errors(parsed, "")]


def _ignored_fields(original: Any, parsed: Any, path: str) -> Iterator[str]:
    if isinstance(original, dict) and isinstance(parsed, dict):
        for name, value in original.items():
            if name in parsed:
                yield from _ignored_fields(value, parsed[name], f"{path}/{name}")
            elif not (name in DATA_SOURCE_FIELDS and path.startswith("/annotations/")):
                yield f"{path}/{name}: no field that Grafana knows"
    elif isinstance(original, list) and isinstance(parsed, list):
        for index, (original_item, parsed_item) in enumerate(zip(original, parsed, strict=True)):
            yield from _ignored_fields(original_item, parsed_item, f"{path}/{index}")
    elif original != parsed:
        yield f"{path}: {original!r} is read as {parsed!r}"


def _type_errors(value: Any, path: str) -> Iterator[str]:
    """Yield values that contradict the type annotations of the SDK, which does not check them itself."""
    if isinstance(value, list | dict):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _type_errors(item, f"{path}/{name}")
    elif type(value).__module__.startswith("grafana_foundation_sdk.models."):
        for name, hint in typing.get_type_hints(type(value)).items():
            item = getattr(value, name)
            if isinstance(item, str | int | float | None):
                try:  # strict JSON mode refuses "8" as a number but accepts the names of enumeration members
                    TypeAdapter(hint, config=_CONFIG).validate_json(json.dumps(item), strict=True)
                except ValidationError as error:
                    yield f"{path}/{name}: {item!r}: {error.errors()[0]['msg']}"
            yield from _type_errors(item, f"{path}/{name}")
