"""Validates requests against the AWS service model, including its limits, which botocore and moto do not check.

botocore rejects unknown and missing members. Only AWS itself rejects a name that is too long, a number that is out of
range, or a value that is not in the enumeration.
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
"""Keys in a pipeline definition that reference a value known only at run time."""


def violations(service: str, operation: str, request: dict[str, Any]) -> list[str]:
    """A message for each violation, with its path in the request. References of a pipeline are accepted."""
    shape = _model(service).operation_model(operation).input_shape
    assert shape is not None
    return list(_check(shape, request, operation))


def enum_values(service: str, shape: str) -> list[str]:
    """All values of an enumeration."""
    values: list[str] = _model(service).shape_for(shape).enum
    return values


def check_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check every request to SageMaker and to Application Auto Scaling; the test fails at the first violation."""
    original_call = BaseClient._make_api_call

    def checked_call(client: BaseClient, operation: str, request: dict[str, Any]) -> Any:
        service = client.meta.service_model.service_name
        if service in {"sagemaker", "application-autoscaling"}:
            violated = violations(service, operation, request)
            assert not violated, violated
        return original_call(client, operation, request)

    monkeypatch.setattr(BaseClient, "_make_api_call", checked_call)


@cache
def _model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def _check(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict) and len(value) == 1 and _REFERENCES & set(value):
        return
    if isinstance(shape, StructureShape):
        yield from _check_structure(shape, value, path)
    elif isinstance(shape, ListShape):
        yield from _check_size(shape, len(value), path)
        for index, each in enumerate(value):
            yield from _check(shape.member, each, f"{path}[{index}]")
    elif isinstance(shape, MapShape):
        yield from _check_size(shape, len(value), path)
        for key, each in value.items():
            yield from _check(shape.key, key, f"{path}: key")
            yield from _check(shape.value, each, f"{path}.{key}")
    elif shape.type_name == "string":
        yield from _check_text(shape, value, path)
    elif shape.type_name in {"integer", "long", "float", "double"}:
        yield from _check_size(shape, value, path)


def _check_structure(shape: StructureShape, value: dict[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if name not in value and not shape.members[name].metadata.get("idempotencyToken"):  # boto3 fills it in
            yield f"{path}.{name} is missing"
    for name, each in value.items():
        if name not in shape.members:
            yield f"{path}.{name} is unknown"
        else:
            yield from _check(shape.members[name], each, f"{path}.{name}")


def _check_text(shape: Shape, value: str, path: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{path}: {value!r} is not text"
        return
    yield from _check_size(shape, len(value), path)
    choices = getattr(shape, "enum", [])
    if choices and value not in choices:
        yield f"{path}: {value!r} is none of {len(choices)} choices"
    pattern = shape.metadata.get("pattern")
    if pattern and not re.fullmatch(_python_pattern(pattern), value, re.DOTALL):
        yield f"{path}: {value!r} does not match {pattern}"


def _check_size(shape: Shape, size: float, path: str) -> Iterator[str]:
    minimum, maximum = shape.metadata.get("min"), shape.metadata.get("max")
    if (minimum is not None and size < minimum) or (maximum is not None and size > maximum):
        yield f"{path}: {size} is not between {minimum} and {maximum}"


def _python_pattern(pattern: str) -> str:
    """The pattern for Python's re, which lacks Unicode categories and surrogates: such sets match everything."""
    return re.sub(r"\[[^]]*\\(?:p\{|u)[^]]*\]|\\p\{\w+\}", r"[\\s\\S]", pattern)
