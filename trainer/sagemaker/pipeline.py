"""The SageMaker pipeline: prepare → train → compare → if better: register, promote, deploy.

Except for registering the model, every step runs a command of the trainer in the trainer's image.
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
from trainer.sagemaker.client import Aws, container_environment, ignore_existing
from trainer.sagemaker.layout import DATA
from trainer.sagemaker.options import SagemakerConfig
from trainer.sagemaker.training import training_step

PROCESSING = "/opt/ml/processing"
PREPARED = f"{PROCESSING}/prepared"
PACKAGE_GROUP = "binwatch"
"""The model package group in SageMaker's registry."""
MAX_PROCESSING_S = 9 * 24 * jobs.SECONDS_PER_HOUR
"""SageMaker's limit for the duration of a processing job. A training job may take longer."""
FILE_OPTIONS = ("list", "audits", "challenge_val")
"""Options of `prepare` that name files. These are uploaded as inputs of the step."""


class RegisterStep(Step):  # type: ignore[misc]
    """Registers the model in SageMaker's registry.

    The SDK's ModelStep is not used, because it needs a ModelBuilder, which sends requests to AWS when it describes a
    model (SDK 3.27: it detects an instance type). `pipeline --show` must not send any.
    """

    def __init__(self, image: str, instance_type: str, model: Any) -> None:
        super().__init__("Register", step_type=StepTypeEnum.REGISTER_MODEL)
        self._request = {
            "ModelPackageGroupName": PACKAGE_GROUP,
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
    """Define the pipeline, without creating it in AWS. `files` maps the file options of `prepare` to S3 URIs."""
    if config.prepare is None:
        raise ConfigError("prepare: the pipeline needs a table [prepare], as `python -m trainer pipeline` does")
    run = Join(
        on="/", values=[config.job.output.rstrip("/"), "pipeline", name, ExecutionVariables.PIPELINE_EXECUTION_ID]
    )
    prepare = _prepare(config, settings, config.prepare, files, run)
    data = prepare.properties.ProcessingOutputConfig.Outputs["prepared"].S3Output.S3Uri
    train = training_step(config, data, checkpoints=Join(on="/", values=[run, "checkpoints"]))
    model = train.properties.ModelArtifacts.S3ModelArtifacts
    comparison = PropertyFile(name="Comparison", output_name="comparison", path=compare.RESULT_FILE)
    inputs = {"model": model, "data": data}
    input_flags = ["--model", f"{PROCESSING}/model", "--data", f"{PROCESSING}/{DATA}"]
    judge = _processing(
        "Compare", config, settings, ["compare", *input_flags, "--out", f"{PROCESSING}/comparison"],
        inputs=inputs, outputs={"comparison": Join(on="/", values=[run, "comparison"])}, files=(comparison,),
    )  # fmt: skip
    better = JsonGet(step_name=judge.name, property_file=comparison, json_path="better")
    if_better: list[Step] = []
    if config.endpoint.image:
        if_better.append(RegisterStep(config.endpoint.image, config.endpoint.instance_type, model))
    promote = ["compare", *input_flags, "--promote"]
    if_better.append(_processing("Promote", config, settings, promote, inputs=inputs))
    if config.endpoint.name:
        deploy = ["deploy", *_deploy_flags(config)]
        if_better.append(_processing("Deploy", config, settings, deploy, after=("Promote",)))
    condition = ConditionEquals(left=better, right=True)
    decide = ConditionStep(name="IfBetter", conditions=[condition], if_steps=if_better, else_steps=[])
    session = sdk.session(settings.bucket, aws.sagemaker)
    return Pipeline(
        name=name, steps=[prepare, train, judge, decide], sagemaker_session=session, pipeline_experiment_config=None
    )


def upload_files(name: str, config: SagemakerConfig, objects: Objects) -> dict[str, str]:
    """Upload the files that `prepare` reads. Returns option → S3 URI, which is derived from the content."""
    uris: dict[str, str] = {}
    for option in FILE_OPTIONS:
        path: Path | None = getattr(config.prepare, option, None)
        if path is None:
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"prepare.{option}: {path}: cannot be read ({error.strerror})") from error
        bucket, _, prefix = config.job.output.removeprefix("s3://").partition("/")
        digest = hashlib.sha256(content).hexdigest()[:12]
        parts = (prefix.strip("/"), "pipeline", name, "inputs", f"{digest}-{path.name}")
        key = "/".join(part for part in parts if part)
        objects.put(bucket, key, content)
        uris[option] = f"s3://{bucket}/{key}"
    return uris


def upsert(aws: Aws, pipeline: Pipeline, config: SagemakerConfig) -> None:
    """Create or update the pipeline, and create the model package group in which it registers models."""
    with translate_errors(f"model package group {PACKAGE_GROUP}", aws.region), ignore_existing():
        aws.sagemaker.create_model_package_group(ModelPackageGroupName=PACKAGE_GROUP, Tags=jobs.tags(config.job))
    with translate_errors(f"pipeline {pipeline.name}", aws.region):
        pipeline.upsert(role_arn=config.job.role, tags=jobs.tags(config.job))


def start(aws: Aws, pipeline: Pipeline) -> str:
    """Start the pipeline. Returns the ARN of the execution."""
    # Not `pipeline.start`, which repeats a denied request for two minutes before it reports the error.
    request = {"PipelineName": pipeline.name}
    response = jobs.create(aws, "start_pipeline_execution", f"pipeline {pipeline.name}", request)
    return str(response["PipelineExecutionArn"])


def _prepare(
    config: SagemakerConfig, settings: Settings, options: PrepareConfig, files: dict[str, str], run: Join
) -> ProcessingStep:
    """Define the step `Prepare`. `files` maps its file options to S3 URIs; `run` is the S3 prefix of its output."""
    paths = {option: f"{PROCESSING}/input/{option}/{uri.rsplit('/', 1)[-1]}" for option, uri in files.items()}
    return _processing(
        "Prepare", config, settings, ["prepare", "--out", PREPARED, *_prepare_flags(options, paths)], group=False,
        inputs={f"input/{option}": uri for option, uri in files.items()},
        outputs={"prepared": Join(on="/", values=[run, "prepared"])},
    )  # fmt: skip


def _prepare_flags(options: PrepareConfig, paths: dict[str, str]) -> list[str]:
    """Return the table [prepare] as flags of `prepare`. `paths` replaces the values of file options."""
    flag_names = {"source": "from"}
    flags: list[str] = []
    for option, value in options.model_dump(exclude_unset=True).items():
        flag = "--" + flag_names.get(option, option).replace("_", "-")
        if isinstance(value, bool):
            flags += [flag] * value
        elif value is not None:
            flags += [flag, paths.get(option, str(value))]
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
    """Define a step that runs `python -m trainer sagemaker COMMAND`, or without `group`, `python -m trainer COMMAND`.

    `inputs` and `outputs` map names of folders below /opt/ml/processing to S3 URIs.
    """
    job = config.job
    processor = Processor(
        role=job.role,
        image_uri=job.image,
        instance_count=1,
        instance_type=job.processing_type,
        entrypoint=["python", "-m", "trainer", *(["sagemaker"] if group else [])],
        volume_size_in_gb=job.volume_gb,
        max_runtime_in_seconds=min(round(job.max_hours * jobs.SECONDS_PER_HOUR), MAX_PROCESSING_S),
        sagemaker_session=sdk.session(),
        env=container_environment(settings, "bucket", "models_prefix", "region"),
        tags=jobs.tags(job),
        network_config=NetworkConfig(subnets=list(job.subnets), security_group_ids=list(job.security_groups))
        if job.subnets
        else None,
    )
    arguments = sdk.step_arguments(
        processor.run,
        inputs=[_input(folder, uri) for folder, uri in (inputs or {}).items()],
        outputs=[_output(folder, uri) for folder, uri in (outputs or {}).items()],
        arguments=command,
    )
    return ProcessingStep(name, arguments, property_files=list(files), depends_on=list(after) or None)


def _deploy_flags(config: SagemakerConfig) -> list[str]:
    """Return the tables [job] and [endpoint] as flags of `deploy`."""
    tables = {"job": config.job, "endpoint": config.endpoint}
    set_options = {
        f"{table}.{option}": value
        for table, options in tables.items()
        for option, value in options.model_dump(mode="json", exclude_unset=True).items()
    }
    return [flag for name, value in set_options.items() for flag in ("--set", f"{name}={_to_toml(value)}")]


def _to_toml(value: Any) -> str:
    """Format a value as TOML. JSON is valid TOML for strings, numbers and lists of them; tables are written inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_to_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def _input(name: str, uri: Any) -> ProcessingInput:
    s3_input = ProcessingS3Input(
        s3_uri=uri,
        local_path=f"{PROCESSING}/{name}",
        s3_data_type="S3Prefix",
        s3_input_mode="File",
        s3_data_distribution_type="FullyReplicated",
    )
    return ProcessingInput(input_name=name.rsplit("/", 1)[-1], s3_input=s3_input)


def _output(name: str, uri: Any) -> ProcessingOutput:
    s3_output = ProcessingS3Output(s3_uri=uri, local_path=f"{PROCESSING}/{name}", s3_upload_mode="EndOfJob")
    return ProcessingOutput(output_name=name, s3_output=s3_output)
