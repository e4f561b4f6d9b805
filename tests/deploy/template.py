"""Evaluates the CloudFormation template for given parameters, without creating anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

TEXT = (Path(__file__).parents[2] / "deploy" / "aws" / "binwatch.yaml").read_text(encoding="utf-8")
_NO_VALUE = object()
"""AWS::NoValue: entries with this value are omitted."""


class _Loader(yaml.SafeLoader):
    """Reads short-form functions such as !If as {"If": …}."""


def _function(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.ScalarNode)
    return {name: loader.construct_scalar(node)}


_Loader.add_multi_constructor("!", _function)  # type: ignore[no-untyped-call]
TEMPLATE: dict[str, Any] = yaml.load(TEXT, _Loader)


class ResolvedTemplate:
    """Resources and outputs for these parameters and the defaults of the others. {"Ref": …} to resources are kept."""

    def __init__(self, **parameters: str) -> None:
        assert parameters.keys() <= TEMPLATE["Parameters"].keys()
        defaults = {name: each.get("Default") for name, each in TEMPLATE["Parameters"].items()}
        self._parameters = defaults | parameters
        self.resources = self._resolve(_select(TEMPLATE["Resources"], self._is_true))
        self.outputs = self._resolve(_select(TEMPLATE["Outputs"], self._is_true))

    def container(self, resource: str) -> dict[str, Any]:
        """The only container of a task."""
        (container,) = self.resources[resource]["Properties"]["ContainerDefinitions"]
        return dict(container)

    def network(self, service: str) -> dict[str, Any]:
        """The network configuration of a service."""
        return dict(self.resources[service]["Properties"]["NetworkConfiguration"]["AwsvpcConfiguration"])

    def ingress(self, service: str) -> list[dict[str, Any]]:
        """The ingress rules of a service's security groups."""
        groups = [each["Ref"] for each in self.network(service)["SecurityGroups"]]
        return [rule for name in groups for rule in self.resources[name]["Properties"].get("SecurityGroupIngress", ())]

    def _is_true(self, condition: Any) -> bool:
        if isinstance(condition, str):
            return self._is_true(TEMPLATE["Conditions"][condition])
        ((function, value),) = condition.items()
        if function == "Condition":
            return self._is_true(value)
        if function == "Equals":
            return bool(self._resolve(value[0]) == self._resolve(value[1]))
        operands = [self._is_true(each) for each in value]
        return not operands[0] if function == "Not" else {"And": all, "Or": any}[function](operands)

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {"If"}:
                condition, then, otherwise = value["If"]
                return self._resolve(then if self._is_true(condition) else otherwise)
            if value.keys() == {"Ref"} and value["Ref"] in self._parameters:
                return self._parameters[value["Ref"]]
            return _NO_VALUE if value == {"Ref": "AWS::NoValue"} else self._without_no_value(value)
        return (
            [each for each in map(self._resolve, value) if each is not _NO_VALUE] if isinstance(value, list) else value
        )

    def _without_no_value(self, value: Mapping[str, Any]) -> dict[str, Any]:
        resolved = {name: self._resolve(each) for name, each in value.items()}
        return {name: each for name, each in resolved.items() if each is not _NO_VALUE}


def _select(definitions: Mapping[str, dict[str, Any]], is_true: Any) -> dict[str, dict[str, Any]]:
    return {name: each for name, each in definitions.items() if "Condition" not in each or is_true(each["Condition"])}
