"""Dashboards against the types of Grafana's own SDK: fields that it does not know, and values of another type."""

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
_OF_THE_SOURCE = {"step", "titleFormat"}
"""Fields of an annotation that Prometheus' data source has beside those of every annotation."""


def faults(dashboard: dict[str, Any]) -> list[str]:
    """What Grafana would ignore or misunderstand, each with its place."""
    register_default_plugins()
    parsed = Dashboard.from_json(dashboard)
    kept = json.loads(json.dumps(parsed, cls=JSONEncoder))
    return [*_lost(dashboard, kept, ""), *_mistyped(parsed, "")]


def _lost(given: Any, kept: Any, where: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name in kept:
                yield from _lost(value, kept[name], f"{where}/{name}")
            elif not (name in _OF_THE_SOURCE and where.startswith("/annotations/")):
                yield f"{where}/{name}: no field that Grafana knows"
    elif isinstance(given, list) and isinstance(kept, list):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{where}/{number}")
    elif given != kept:
        yield f"{where}: {given!r} is read as {kept!r}"


def _mistyped(value: Any, where: str) -> Iterator[str]:
    """The SDK's classes have annotations, which they do not check."""
    if isinstance(value, list | dict):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _mistyped(one, f"{where}/{name}")
    elif type(value).__module__.startswith("grafana_foundation_sdk.models."):
        for name, hint in typing.get_type_hints(type(value)).items():
            one = getattr(value, name)
            if isinstance(one, str | int | float | None):
                try:  # as JSON, since "8" is no number there, but a text names a member of an enumeration
                    TypeAdapter(hint, config=_CONFIG).validate_json(json.dumps(one), strict=True)
                except ValidationError as error:
                    yield f"{where}/{name}: {one!r}: {error.errors()[0]['msg']}"
            yield from _mistyped(one, f"{where}/{name}")
