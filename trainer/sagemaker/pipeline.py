"""A SageMaker Pipeline: prepare → train → compare → if better: register, promote, deploy.

Every step runs the trainer's image with one of the trainer's commands, so what runs there is what runs here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from sagemaker.core.workflow.conditions import ConditionEquals
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.core.workflow.properties import Properties, PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import Step, StepTypeEnum

from binwatch.environment import PREFIX
from binwatch.objects import Objects
from binwatch.sagemaker.requests import explained, is_taken
from binwatch.settings import Settings
from trainer.errors import ConfigError
from trainer.prepare.config import PrepareConfig
from trainer.sagemaker import compare, jobs
from trainer.sagemaker.client import Aws, idempotent
from trainer.sagemaker.layout import DATA
from trainer.sagemaker.options import SagemakerConfig

PROCESSING = "/opt/ml/processing"
PREPARED = f"{PROCESSING}/prepared"
GROUP = "binwatch"
"""The model package group in SageMaker's registry."""
MAX_PROCESSING_S = 9 * 24 * jobs.HOUR
"""SageMaker's limit for a processing job; a training job may take longer."""
FILES = ("list", "audits", "challenge_val")
"""Options of `prepare` that are files: they are uploaded, and the step finds them among its inputs."""


class RequestStep(Step):  # type: ignore[misc]
    """A step whose arguments are a request of SageMaker's API, with the SDK's references in it."""

    def __init__(
        self,
        name: str,
        kind: StepTypeEnum,
        answer: str,
        request: dict[str, Any],
        *,
        files: tuple[PropertyFile, ...] = (),
        after: tuple[str, ...] = (),
    ) -> None:
        """`answer` names the shape of what describes the thing that the step makes."""
        super().__init__(name, step_type=kind, depends_on=list(after) or None)
        self._request = request
        self._files = files
        self._properties = Properties(step_name=name, step=self, shape_name=answer)

    @property
    def arguments(self) -> dict[str, Any]:
        return self._request

    @property
    def properties(self) -> Properties:
        return self._properties

    @property
    def property_files(self) -> list[PropertyFile]:
        """Where the SDK looks for what JsonGet refers to."""
        return list(self._files)

    def to_request(self) -> dict[str, Any]:
        request: dict[str, Any] = super().to_request()
        return request | ({"PropertyFiles": [file.expr for file in self._files]} if self._files else {})


def definition(name: str, config: SagemakerConfig, settings: Settings, files: dict[str, str]) -> dict[str, Any]:
    """The pipeline as SageMaker takes it. `files` says where options of `prepare` that are files lie in S3."""
    if config.prepare is None:
        raise ConfigError("prepare: the pipeline needs a table [prepare], as `python -m trainer pipeline` does")
    run = Join(
        on="/", values=[config.job.output.rstrip("/"), "pipeline", name, ExecutionVariables.PIPELINE_EXECUTION_ID]
    )
    prepare = _prepare(config, settings, config.prepare, files, run)
    data = prepare.properties.ProcessingOutputConfig.Outputs["prepared"].S3Output.S3Uri
    train = RequestStep(
        "Train", StepTypeEnum.TRAINING, "DescribeTrainingJobResponse",
        jobs.with_checkpoints(jobs.training_request(config, data), Join(on="/", values=[run, "checkpoints"])),
    )  # fmt: skip
    model = train.properties.ModelArtifacts.S3ModelArtifacts
    answer = PropertyFile(name="Comparison", output_name="comparison", path=compare.ANSWER)
    judge = _processing(
        "Compare", config, settings, ["compare", *_places(), "--out", f"{PROCESSING}/comparison"],
        inputs={"model": model, "data": data}, outputs={"comparison": Join(on="/", values=[run, "comparison"])},
        files=(answer,),
    )  # fmt: skip
    better = ConditionEquals(left=JsonGet(step_name=judge.name, property_file=answer, json_path="better"), right=True)
    then = []
    if config.endpoint.image:
        package = _package(config, model)
        then.append(RequestStep("Register", StepTypeEnum.REGISTER_MODEL, "DescribeModelPackageOutput", package))
    then.append(
        _processing(
            "Promote", config, settings, ["compare", *_places(), "--promote"], inputs={"model": model, "data": data}
        )
    )
    if config.endpoint.name:
        then.append(_processing("Deploy", config, settings, ["deploy", *_flags(config)], after=("Promote",)))
    decide = ConditionStep(name="IfBetter", conditions=[better], if_steps=then, else_steps=[])
    session = PipelineSession(
        boto_session=boto3.Session(region_name=settings.region), default_bucket=settings.bucket, sagemaker_config={}
    )
    found = Pipeline(
        name=name, steps=[prepare, train, judge, decide], sagemaker_session=session, pipeline_experiment_config=None
    )
    result: dict[str, Any] = json.loads(found.definition())
    return result


def upload_files(name: str, config: SagemakerConfig, objects: Objects) -> dict[str, str]:
    """Upload the files that `prepare` reads; returns option → S3 URI, which follows from the content."""
    files: dict[str, str] = {}
    for option in FILES:
        path: Path | None = getattr(config.prepare, option, None)
        if path is None:
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"prepare.{option}: {path}: cannot be read ({error.strerror})") from error
        bucket, _, prefix = config.job.output.removeprefix("s3://").partition("/")
        digest = hashlib.sha256(content).hexdigest()[:12]
        key = "/".join(
            part for part in (prefix.strip("/"), "pipeline", name, "inputs", f"{digest}-{path.name}") if part
        )
        objects.put(bucket, key, content)
        files[option] = f"s3://{bucket}/{key}"
    return files


def upsert(aws: Aws, name: str, config: SagemakerConfig, found: dict[str, Any]) -> None:
    """Create the pipeline, or give it a new definition; and the model package group that it registers in."""
    with explained(f"model package group {GROUP}", aws.region), idempotent():
        aws.sagemaker.create_model_package_group(ModelPackageGroupName=GROUP, Tags=jobs.tags(config.job))
    request = {"PipelineName": name, "PipelineDefinition": json.dumps(found), "RoleArn": config.job.role}
    with explained(f"pipeline {name}", aws.region):
        try:
            aws.sagemaker.create_pipeline(**request, Tags=jobs.tags(config.job))
        except ClientError as error:
            if not is_taken(error):
                raise
            aws.sagemaker.update_pipeline(**request)


def _prepare(
    config: SagemakerConfig, settings: Settings, options: PrepareConfig, files: dict[str, str], run: Join
) -> RequestStep:
    flags = _prepare_flags(options, {option: f"{PROCESSING}/input/{option}/{uri.rsplit('/', 1)[-1]}"
                                     for option, uri in files.items()})  # fmt: skip
    return _processing(
        "Prepare", config, settings, ["prepare", "--out", PREPARED, *flags], group=False,
        inputs={f"input/{option}": uri for option, uri in files.items()},
        outputs={"prepared": Join(on="/", values=[run, "prepared"])},
    )  # fmt: skip


def _prepare_flags(options: PrepareConfig, files: dict[str, str]) -> list[str]:
    """The table [prepare] as flags of `prepare`."""
    names = {"source": "from"}
    flags: list[str] = []
    for option, value in options.model_dump(exclude_unset=True).items():
        flag = "--" + names.get(option, option).replace("_", "-")
        if isinstance(value, bool):
            flags += [flag] * value
        elif value is not None:
            flags += [flag, files.get(option, str(value))]
    return flags


def _processing(
    name: str,
    config: SagemakerConfig,
    settings: Settings,
    command: list[str],
    *,
    group: bool = True,
    inputs: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
    files: tuple[PropertyFile, ...] = (),
    after: tuple[str, ...] = (),
) -> RequestStep:
    """A job that runs `python -m trainer [sagemaker] COMMAND`; inputs and outputs lie below /opt/ml/processing."""
    job = config.job
    request: dict[str, Any] = {
        "AppSpecification": {
            "ImageUri": job.image,
            "ContainerEntrypoint": ["python", "-m", "trainer", *(["sagemaker"] if group else [])],
            "ContainerArguments": command,
        },
        "Environment": _environment(settings),
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": job.processing_type,
                "VolumeSizeInGB": job.volume_gb,
            }
        },
        "ProcessingInputs": [_input(each, uri) for each, uri in (inputs or {}).items()],
        "RoleArn": job.role,
        "StoppingCondition": {"MaxRuntimeInSeconds": min(round(job.max_hours * jobs.HOUR), MAX_PROCESSING_S)},
        "Tags": jobs.tags(job),
    }
    if outputs:
        request["ProcessingOutputConfig"] = {"Outputs": [_output(each, uri) for each, uri in outputs.items()]}
    if job.subnets:
        request["NetworkConfig"] = {
            "VpcConfig": {"Subnets": list(job.subnets), "SecurityGroupIds": list(job.security_groups)}
        }
    return RequestStep(
        name, StepTypeEnum.PROCESSING, "DescribeProcessingJobResponse", request, files=files, after=after
    )


def _environment(settings: Settings) -> dict[str, str]:
    """Where the models in use are kept."""
    chosen = {"bucket": settings.bucket, "models_prefix": settings.models_prefix, "region": settings.region}
    return {PREFIX + name.upper(): value for name, value in chosen.items()}


def _places() -> list[str]:
    return ["--model", f"{PROCESSING}/model", "--data", f"{PROCESSING}/{DATA}"]


def _flags(config: SagemakerConfig) -> list[str]:
    """The tables [job] and [endpoint], as `deploy` inside the step takes them."""
    tables = {"job": config.job, "endpoint": config.endpoint}
    given = {
        f"{table}.{option}": value
        for table, options in tables.items()
        for option, value in options.model_dump(mode="json", exclude_unset=True).items()
    }
    return [part for name, value in given.items() for part in ("--set", f"{name}={_toml(value)}")]


def _toml(value: Any) -> str:
    """JSON is TOML too, for texts, numbers and lists of them; tables are written inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def _input(name: str, uri: Any) -> dict[str, Any]:
    return {
        "InputName": name.rsplit("/", 1)[-1],
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": f"{PROCESSING}/{name}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
            "S3DataDistributionType": "FullyReplicated",
        },
    }


def _output(name: str, uri: Any) -> dict[str, Any]:
    place = {"S3Uri": uri, "LocalPath": f"{PROCESSING}/{name}", "S3UploadMode": "EndOfJob"}
    return {"OutputName": name, "S3Output": place}


def _package(config: SagemakerConfig, model: Any) -> dict[str, Any]:
    photo_types = ["image/jpeg", "image/png", "application/json", "application/jsonlines"]
    return {
        "ModelPackageGroupName": GROUP,
        "ModelPackageDescription": "counts items in bin photos; better than the one in use on the same test photos",
        "InferenceSpecification": {
            "Containers": [{"Image": config.endpoint.image, "ModelDataUrl": model}],
            "SupportedContentTypes": photo_types,
            "SupportedResponseMIMETypes": ["application/json"],
            "SupportedRealtimeInferenceInstanceTypes": [config.endpoint.instance_type],
        },
        "ModelApprovalStatus": "Approved",
    }
