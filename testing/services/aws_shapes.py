"""Checks a request against the service's own description, limits included, which neither botocore nor moto does.

botocore refuses unknown and missing names. A name that is too long, a number that is too large and a value outside of
the allowed ones are refused by AWS alone, in a real account.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

_REFERENCES = {"Get", "Std:Join", "Std:JsonGet"}
"""Keys of a pipeline's definition that refer to a value which is not known yet."""


def complaints(service: str, operation: str, request: dict[str, Any]) -> list[str]:
    """What AWS would object to, each with where it stands; references of a pipeline pass."""
    shape = _model(service).operation_model(operation).input_shape
    assert shape is not None
    return list(_about(shape, request, operation))


def choices(service: str, shape: str) -> list[str]:
    """All values of an enumeration."""
    found: list[str] = _model(service).shape_for(shape).enum
    return found


def check_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check every request to SageMaker and to Application Auto Scaling; the test fails at the first complaint."""
    make = BaseClient._make_api_call

    def checked(client: BaseClient, operation: str, request: dict[str, Any]) -> Any:
        service = client.meta.service_model.service_name
        if service in {"sagemaker", "application-autoscaling"}:
            found = complaints(service, operation, request)
            assert not found, found
        return make(client, operation, request)

    monkeypatch.setattr(BaseClient, "_make_api_call", checked)


@cache
def _model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def _about(shape: Shape, value: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict) and len(value) == 1 and _REFERENCES & set(value):
        return
    if isinstance(shape, StructureShape):
        yield from _about_structure(shape, value, where)
    elif isinstance(shape, ListShape):
        yield from _about_size(shape, len(value), where)
        for number, each in enumerate(value):
            yield from _about(shape.member, each, f"{where}[{number}]")
    elif isinstance(shape, MapShape):
        yield from _about_size(shape, len(value), where)
        for key, each in value.items():
            yield from _about(shape.key, key, f"{where}: key")
            yield from _about(shape.value, each, f"{where}.{key}")
    elif shape.type_name == "string":
        yield from _about_text(shape, value, where)
    elif shape.type_name in {"integer", "long", "float", "double"}:
        yield from _about_size(shape, value, where)


def _about_structure(shape: StructureShape, value: dict[str, Any], where: str) -> Iterator[str]:
    for name in shape.required_members:
        if name not in value and not shape.members[name].metadata.get("idempotencyToken"):  # which boto3 gives
            yield f"{where}.{name} is missing"
    for name, each in value.items():
        if name not in shape.members:
            yield f"{where}.{name} is unknown"
        else:
            yield from _about(shape.members[name], each, f"{where}.{name}")


def _about_text(shape: Shape, value: str, where: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where}: {value!r} is not text"
        return
    yield from _about_size(shape, len(value), where)
    choices = getattr(shape, "enum", [])
    if choices and value not in choices:
        yield f"{where}: {value!r} is none of {len(choices)} choices"
    pattern = shape.metadata.get("pattern")
    if pattern and not re.fullmatch(_as_python(pattern), value, re.DOTALL):
        yield f"{where}: {value!r} does not match {pattern}"


def _about_size(shape: Shape, size: float, where: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if (least is not None and size < least) or (most is not None and size > most):
        yield f"{where}: {size} is not between {least} and {most}"


def _as_python(pattern: str) -> str:
    """A set with Unicode categories or surrogates, which Python's re does not know, matches everything."""
    return re.sub(r"\[[^]]*\\(?:p\{|u)[^]]*\]|\\p\{\w+\}", r"[\\s\\S]", pattern)
