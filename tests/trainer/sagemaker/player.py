"""Runs training jobs and pipelines as SageMaker does, as far as Binwatch relies on it.

moto takes the requests and runs nothing. Here are the folders below /opt/ml, channels and inputs from S3, the command
of a container, its exit status and failure file, model.tar.gz and outputs to S3, and references between steps. Each
container is a process here or a call, and /opt/ml a folder of the test's: paths in commands are changed to lie there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from testing.services.s3 import S3
from tests.trainer.drawn import run_cli

OPT_ML = "/opt/ml"


@dataclass
class Ended:
    """The result of a container."""

    status: int
    said: str
    failure: str


@dataclass
class Container:
    """One machine of a job, with its /opt/ml and its process."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command as the container's first process, with output and errors in one pipe."""
        own = [part.replace(OPT_ML, str(self.root)) for part in command]
        own = [sys.executable if part == "python" else part for part in own]
        return subprocess.Popen(
            own,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[3],
        )

    def run(self, command: list[str]) -> Ended:
        """Run a command to its end."""
        process = self.start(command)
        output, _ = process.communicate(timeout=240)
        failure = self.root / "output" / "failure"
        return Ended(process.returncode, output, failure.read_text() if failure.exists() else "")

    def run_here(self, command: list[str]) -> None:
        """Run a command of `python -m trainer` in this process, which is faster. It must succeed."""
        assert command[:3] == ["python", "-m", "trainer"]
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            try:
                run_cli(*(part.replace(OPT_ML, str(self.root)) for part in command[3:]))
            except SystemExit as ended:
                if ended.code:
                    raise

    def configure(self, hyperparameters: dict[str, str], resources: dict[str, Any] | None = None) -> None:
        """Write the configuration that SageMaker provides before the start."""
        folder = self.root / "input" / "config"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hyperparameters.json").write_text(json.dumps(hyperparameters))
        if resources:
            (folder / "resourceconfig.json").write_text(json.dumps(resources))


TRAIN = ["python", "-m", "trainer", "sagemaker", "container", "--root", OPT_ML]
"""The image's command for `train`."""


class Player:
    """Executes the definition of a pipeline, step by step, on the objects of a bucket."""

    def __init__(
        self, definition: dict[str, Any], s3: S3, work: Path, cached: dict[str, Any] | None = None
    ) -> None:  # fmt: skip
        """`cached` are steps that are not run again, as SageMaker's step caching has it, with what they made."""
        self._definition = definition
        self._s3 = s3
        self._work = work
        self.found: dict[str, Any] = {"Execution": {"PipelineExecutionId": "e1"}, "Steps": dict(cached or {})}
        self.done: list[str] = []

    def play(self) -> None:
        """All steps, in the order in which they are listed; raises AssertionError with what a failing one said."""
        self._steps(self._definition["Steps"])

    def _steps(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            expected = [part.split(".")[1] for part in _references(step["Arguments"]) if part.startswith("Steps.")]
            assert {*expected, *step.get("DependsOn", [])} <= set(self.done), (
                f"{step['Name']} runs before its dependencies"
            )
            if step["Type"] == "Condition":
                self._condition(step["Arguments"])
            elif step["Name"] not in self.found["Steps"]:
                play = {"Processing": self._processing, "Training": self._training, "RegisterModel": self._register}
                self.found["Steps"][step["Name"]] = play[step["Type"]](step["Name"], self._resolved(step["Arguments"]))
            for file in step.get("PropertyFiles", []):
                outputs = self.found["Steps"][step["Name"]]["ProcessingOutputConfig"]["Outputs"]
                uri = outputs[file["OutputName"]]["S3Output"]["S3Uri"]
                content = json.loads(self._get(f"{uri}/{file['FilePath']}"))
                self.found["Steps"][step["Name"]].setdefault("PropertyFiles", {})[file["PropertyFileName"]] = content
            self.done.append(step["Name"])

    def _condition(self, arguments: dict[str, Any]) -> None:
        (condition,) = arguments["Conditions"]
        assert condition["Type"] == "Equals"
        holds = self._resolved(condition["LeftValue"]) == self._resolved(condition["RightValue"])
        self._steps(arguments["IfSteps" if holds else "ElseSteps"])

    def _training(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        container = Container(self._work / name)
        container.configure(request["HyperParameters"])
        for channel in request["InputDataConfig"]:
            folder = container.root / "input" / "data" / channel["ChannelName"]
            self._download(channel["DataSource"]["S3DataSource"]["S3Uri"], folder)
        container.run_here(TRAIN)
        archive = container.root / "model.tar.gz"
        with tarfile.open(archive, "w:gz") as out:
            for file in sorted((container.root / "model").iterdir()):
                out.add(file, file.name)
        uri = f"{request['OutputDataConfig']['S3OutputPath']}/{name}/output/model.tar.gz"
        self._put(uri, archive.read_bytes())
        return request | {"ModelArtifacts": {"S3ModelArtifacts": uri}}

    def _processing(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        container = Container(self._work / name, request["Environment"])
        for each in request.get("ProcessingInputs", []):
            place = each["S3Input"]
            self._download(place["S3Uri"], self._inside(container, place["LocalPath"]))
        application = request["AppSpecification"]
        container.run_here([*application["ContainerEntrypoint"], *application["ContainerArguments"]])
        outputs = {}
        for each in request.get("ProcessingOutputConfig", {}).get("Outputs", []):
            self._upload(self._inside(container, each["S3Output"]["LocalPath"]), each["S3Output"]["S3Uri"])
            outputs[each["OutputName"]] = each
        return request | {"ProcessingOutputConfig": {"Outputs": outputs}}

    def _register(self, _: str, request: dict[str, Any]) -> dict[str, Any]:
        return request

    def _inside(self, container: Container, path: str) -> Path:
        return container.root / path.removeprefix(OPT_ML + "/")

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "Get" in value:
            result: Any = self.found
            for part in re.findall(r"\['([^']+)'\]|([^.\[\]]+)", value["Get"]):
                result = result[part[0] or part[1]]
            return result
        if "Std:Join" in value:
            return value["Std:Join"]["On"].join(map(str, self._resolved(value["Std:Join"]["Values"])))
        if "Std:JsonGet" in value:
            return self._resolved(value["Std:JsonGet"]["PropertyFile"])[value["Std:JsonGet"]["Path"]]
        return {key: self._resolved(each) for key, each in value.items()}

    def _download(self, uri: str, folder: Path) -> None:
        """Download an S3Prefix input: the files below the prefix, or the single object of that name."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        result = self._s3.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [each["Key"] for page in result for each in page.get("Contents", ())]
        assert keys, f"nothing at {uri}"
        for key in keys:
            name = key.removeprefix(prefix).lstrip("/") or key.rsplit("/", 1)[-1]
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._s3.client.download_file(bucket, key, str(folder / name))

    def _upload(self, folder: Path, uri: str) -> None:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            self._put(f"{uri}/{file.relative_to(folder)}", file.read_bytes())

    def _get(self, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        data: bytes = self._s3.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return data

    def _put(self, uri: str, data: bytes) -> None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        self._s3.client.put_object(Bucket=bucket, Key=key, Body=data)


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [result for each in value for result in _references(each)]
    if isinstance(value, dict):
        return [value["Get"]] if "Get" in value else [result for each in value.values() for result in _references(each)]
    return []
