"""A SageMaker Pipeline: prepare → train → compare → if better: register, promote, deploy.

Every step runs the trainer's image with one of the trainer's commands, so it does the same as the command elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sagemaker.core.network import NetworkConfig
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
from sagemaker.core.workflow.conditions import ConditionEquals
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.properties import Properties, PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import ProcessingStep, Step, StepTypeEnum

from binwatch.objects import Objects
from binwatch.sagemaker.requests import translate_errors
from binwatch.settings import Settings
from trainer.errors import ConfigError
from trainer.prepare.config import PrepareConfig
from trainer.sagemaker import compare, jobs, sdk
from trainer.sagemaker.client import Aws, environment, idempotent
from trainer.sagemaker.layout import DATA
from trainer.sagemaker.options import SagemakerConfig
from trainer.sagemaker.training import training_step

PROCESSING = "/opt/ml/processing"
PREPARED = f"{PROCESSING}/prepared"
GROUP = "binwatch"
"""The model package group in SageMaker's registry."""
MAX_PROCESSING_S = 9 * 24 * jobs.HOUR
"""SageMaker's limit for a processing job; a training job may take longer."""
FILES = ("list", "audits", "challenge_val")
"""Options of `prepare` that are files. They are uploaded as inputs of the step."""


class RegisterStep(Step):  # type: ignore[misc]
    """Registers the model.

    The SDK's ModelStep is not used: it needs a ModelBuilder, which sends requests to AWS while it describes a model
    (SDK 3.27: it detects an instance type). `pipeline --show` must send none.
    """

    def __init__(self, image: str, instance_type: str, model: Any) -> None:
        super().__init__("Register", step_type=StepTypeEnum.REGISTER_MODEL)
        self._request = {
            "ModelPackageGroupName": GROUP,
            "ModelPackageDescription": "counts items in bin photos; better than the one in use on the same test photos",
            "InferenceSpecification": {
                "Containers": [{"Image": image, "ModelDataUrl": model}],
                "SupportedContentTypes": ["image/jpeg", "image/png", "application/json", "application/jsonlines"],
                "SupportedResponseMIMETypes": ["application/json"],
                "SupportedRealtimeInferenceInstanceTypes": [instance_type],
            },
            "ModelApprovalStatus": "Approved",
        }

    @property
    def arguments(self) -> dict[str, Any]:
        return self._request

    @property
    def properties(self) -> Properties:
        return Properties(step_name=self.name, step=self, shape_name="DescribeModelPackageOutput")


def make_pipeline(aws: Aws, name: str, config: SagemakerConfig, settings: Settings, files: dict[str, str]) -> Pipeline:
    """The pipeline, not yet created in AWS. `files` are the S3 URIs of the options of `prepare` that are files."""
    if config.prepare is None:
        raise ConfigError("prepare: the pipeline needs a table [prepare], as `python -m trainer pipeline` does")
    run = Join(
        on="/", values=[config.job.output.rstrip("/"), "pipeline", name, ExecutionVariables.PIPELINE_EXECUTION_ID]
    )
    prepare = _prepare(config, settings, config.prepare, files, run)
    data = prepare.properties.ProcessingOutputConfig.Outputs["prepared"].S3Output.S3Uri
    train = training_step(config, data, checkpoints=Join(on="/", values=[run, "checkpoints"]))
    model = train.properties.ModelArtifacts.S3ModelArtifacts
    answer = PropertyFile(name="Comparison", output_name="comparison", path=compare.ANSWER)
    judge = _processing(
        "Compare", config, settings, ["compare", *_places(), "--out", f"{PROCESSING}/comparison"],
        inputs={"model": model, "data": data}, outputs={"comparison": Join(on="/", values=[run, "comparison"])},
        files=(answer,),
    )  # fmt: skip
    better = ConditionEquals(left=JsonGet(step_name=judge.name, property_file=answer, json_path="better"), right=True)
    then: list[Step] = []
    if config.endpoint.image:
        then.append(RegisterStep(config.endpoint.image, config.endpoint.instance_type, model))
    then.append(
        _processing(
            "Promote", config, settings, ["compare", *_places(), "--promote"], inputs={"model": model, "data": data}
        )
    )
    if config.endpoint.name:
        then.append(_processing("Deploy", config, settings, ["deploy", *_flags(config)], after=("Promote",)))
    decide = ConditionStep(name="IfBetter", conditions=[better], if_steps=then, else_steps=[])
    session = sdk.session(settings.bucket, aws.sagemaker)
    return Pipeline(
        name=name, steps=[prepare, train, judge, decide], sagemaker_session=session, pipeline_experiment_config=None
    )


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


def upsert(aws: Aws, pipeline: Pipeline, config: SagemakerConfig) -> None:
    """Create the pipeline, or give it a new definition; and the model package group that it registers in."""
    with translate_errors(f"model package group {GROUP}", aws.region), idempotent():
        aws.sagemaker.create_model_package_group(ModelPackageGroupName=GROUP, Tags=jobs.tags(config.job))
    with translate_errors(f"pipeline {pipeline.name}", aws.region):
        pipeline.upsert(role_arn=config.job.role, tags=jobs.tags(config.job))


def start(aws: Aws, pipeline: Pipeline) -> str:
    """Start the pipeline; returns the ARN of the execution."""
    # Not `pipeline.start`, which repeats a request that is not allowed for two minutes before it says so.
    request = {"PipelineName": pipeline.name}
    return str(
        jobs.create(aws, "start_pipeline_execution", f"pipeline {pipeline.name}", request)["PipelineExecutionArn"]
    )


def _prepare(
    config: SagemakerConfig, settings: Settings, options: PrepareConfig, files: dict[str, str], run: Join
) -> ProcessingStep:
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
) -> ProcessingStep:
    """A job that runs `python -m trainer [sagemaker] COMMAND`; inputs and outputs lie below /opt/ml/processing."""
    job = config.job
    processor = Processor(
        role=job.role,
        image_uri=job.image,
        instance_count=1,
        instance_type=job.processing_type,
        entrypoint=["python", "-m", "trainer", *(["sagemaker"] if group else [])],
        volume_size_in_gb=job.volume_gb,
        max_runtime_in_seconds=min(round(job.max_hours * jobs.HOUR), MAX_PROCESSING_S),
        sagemaker_session=sdk.session(),
        env=environment(settings, "bucket", "models_prefix", "region"),
        tags=jobs.tags(job),
        network_config=NetworkConfig(subnets=list(job.subnets), security_group_ids=list(job.security_groups))
        if job.subnets
        else None,
    )
    arguments = sdk.step_arguments(
        processor.run,
        inputs=[_input(each, uri) for each, uri in (inputs or {}).items()],
        outputs=[_output(each, uri) for each, uri in (outputs or {}).items()],
        arguments=command,
    )
    return ProcessingStep(name, arguments, property_files=list(files), depends_on=list(after) or None)


def _places() -> list[str]:
    return ["--model", f"{PROCESSING}/model", "--data", f"{PROCESSING}/{DATA}"]


def _flags(config: SagemakerConfig) -> list[str]:
    """The tables [job] and [endpoint] as flags of `deploy`."""
    tables = {"job": config.job, "endpoint": config.endpoint}
    given = {
        f"{table}.{option}": value
        for table, options in tables.items()
        for option, value in options.model_dump(mode="json", exclude_unset=True).items()
    }
    return [part for name, value in given.items() for part in ("--set", f"{name}={_toml(value)}")]


def _toml(value: Any) -> str:
    """A value as TOML. JSON is valid TOML for strings, numbers and lists of them; tables are written inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def _input(name: str, uri: Any) -> ProcessingInput:
    place = ProcessingS3Input(
        s3_uri=uri,
        local_path=f"{PROCESSING}/{name}",
        s3_data_type="S3Prefix",
        s3_input_mode="File",
        s3_data_distribution_type="FullyReplicated",
    )
    return ProcessingInput(input_name=name.rsplit("/", 1)[-1], s3_input=place)


def _output(name: str, uri: Any) -> ProcessingOutput:
    place = ProcessingS3Output(s3_uri=uri, local_path=f"{PROCESSING}/{name}", s3_upload_mode="EndOfJob")
    return ProcessingOutput(output_name=name, s3_output=place)
