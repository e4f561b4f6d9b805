"""The CloudFormation template as it comes out for certain parameters: conditions decided, nothing made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

TEXT = (Path(__file__).parents[2] / "deploy" / "aws" / "binwatch.yaml").read_text(encoding="utf-8")
_NOTHING = object()
"""AWS::NoValue: what has it for a value is left out."""


class _Loader(yaml.SafeLoader):
    """Reads !If and its like as {"If": …}."""


def _function(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.ScalarNode)
    return {name: loader.construct_scalar(node)}


_Loader.add_multi_constructor("!", _function)  # type: ignore[no-untyped-call]
TEMPLATE: dict[str, Any] = yaml.load(TEXT, _Loader)


class Resolved:
    """Resources and outputs for some parameters; the others have their defaults. {"Ref": …} of resources stay."""

    def __init__(self, **given: str) -> None:
        assert given.keys() <= TEMPLATE["Parameters"].keys()
        self._given = {name: each.get("Default") for name, each in TEMPLATE["Parameters"].items()} | given
        self.resources = self._resolved(_if_there(TEMPLATE["Resources"], self._holds))
        self.outputs = self._resolved(_if_there(TEMPLATE["Outputs"], self._holds))

    def container(self, resource: str) -> dict[str, Any]:
        """The one container of a task."""
        (found,) = self.resources[resource]["Properties"]["ContainerDefinitions"]
        return dict(found)

    def network(self, service: str) -> dict[str, Any]:
        """Where a service's containers are."""
        return dict(self.resources[service]["Properties"]["NetworkConfiguration"]["AwsvpcConfiguration"])

    def ingress(self, service: str) -> list[dict[str, Any]]:
        """What may reach a service's containers."""
        groups = [each["Ref"] for each in self.network(service)["SecurityGroups"]]
        return [rule for name in groups for rule in self.resources[name]["Properties"].get("SecurityGroupIngress", ())]

    def _holds(self, condition: Any) -> bool:
        if isinstance(condition, str):
            return self._holds(TEMPLATE["Conditions"][condition])
        ((function, value),) = condition.items()
        if function == "Condition":
            return self._holds(value)
        if function == "Equals":
            return bool(self._resolved(value[0]) == self._resolved(value[1]))
        parts = [self._holds(each) for each in value]
        return not parts[0] if function == "Not" else {"And": all, "Or": any}[function](parts)

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {"If"}:
                condition, then, otherwise = value["If"]
                return self._resolved(then if self._holds(condition) else otherwise)
            if value.keys() == {"Ref"} and value["Ref"] in self._given:
                return self._given[value["Ref"]]
            return _NOTHING if value == {"Ref": "AWS::NoValue"} else self._without_nothing(value)
        return (
            [each for each in map(self._resolved, value) if each is not _NOTHING] if isinstance(value, list) else value
        )

    def _without_nothing(self, value: Mapping[str, Any]) -> dict[str, Any]:
        found = {name: self._resolved(each) for name, each in value.items()}
        return {name: each for name, each in found.items() if each is not _NOTHING}


def _if_there(named: Mapping[str, dict[str, Any]], holds: Any) -> dict[str, dict[str, Any]]:
    return {name: each for name, each in named.items() if "Condition" not in each or holds(each["Condition"])}
