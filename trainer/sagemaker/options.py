"""The configuration of jobs and endpoints on SageMaker, from a TOML file and flags. Rejects unknown options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.config import AugmentConfig, ModelConfig, TrainConfig, apply_changes, first_mistake, read_toml
from trainer.errors import ConfigError
from trainer.pipeline import ExportConfig, SplitConfig
from trainer.prepare.config import PrepareConfig

S3_URI = r"^s3://[a-z0-9.-]{3,63}(/.*)?$"
ROLE_ARN = r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$"


class _OptionTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobConfig(_OptionTable):
    """The table [job]: machines, role and limits of jobs."""

    role: str = Field(pattern=ROLE_ARN, description="ARN of the role that SageMaker assumes")
    image: str = Field(min_length=1, description="URI of the trainer's image in ECR")
    output: str = Field(pattern=S3_URI, description="s3://BUCKET/PREFIX for models, outputs and checkpoints")
    instance_type: str = Field("ml.g5.xlarge", pattern=r"^ml\.", description="instance type of a training job")
    instances: int = Field(1, ge=1, le=20, description="number of instances of a training job")
    processing_type: str = Field("ml.m5.2xlarge", pattern=r"^ml\.", description="instance type of prepare and compare")
    volume_gb: int = Field(
        100, ge=1, le=16_384, description="disk of each instance in GB, for photos, features and checkpoints"
    )
    max_hours: float = Field(12.0, gt=0, le=672, description="hours after which a job is stopped")
    spot: bool = Field(False, description="spot instances: cheaper, sometimes interrupted; the job then continues")
    spot_wait_hours: float = Field(
        24.0, gt=0, le=672, description="with spot: longest run time and waiting time together, in hours"
    )
    subnets: tuple[str, ...] = Field(
        (), description="ids of the VPC's subnets to run in; none: SageMaker's own network"
    )
    security_groups: tuple[str, ...] = Field((), description="ids of security groups; required with subnets")
    tags: dict[str, str] = Field({}, description="tags of all created resources, for billing")

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups go together: give both, or none")
        return self


class TuningConfig(_OptionTable):
    """The table [tuning]: a tuning job, in which each trial is a training job."""

    preset: str = Field("default", description="search space: default, or capstone")
    trials: int = Field(20, ge=1, le=750, description="total number of training jobs")
    parallel: int = Field(2, ge=1, le=100, description="concurrent training jobs")
    strategy: str = Field(
        "Bayesian", pattern="^(Bayesian|Random|Hyperband)$", description="strategy for choosing the next trial"
    )


class EndpointConfig(_OptionTable):
    """The table [endpoint]: a real-time endpoint."""

    name: str = Field(
        "", pattern=r"^([a-zA-Z0-9](-*[a-zA-Z0-9]){0,62})?$", description="name of the endpoint; empty: no endpoint"
    )
    image: str = Field("", description="URI of the worker's image in ECR; empty: the pipeline registers no model")
    role: str = Field("", pattern=f"^$|{ROLE_ARN}", description="ARN of the model's role; empty: job.role")
    instance_type: str = Field("ml.c6i.xlarge", pattern=r"^ml\.", description="instance type")
    instances: int = Field(1, ge=1, description="initial and smallest number of instances")
    max_instances: int = Field(4, ge=1, description="largest number of instances")
    photos_per_minute: float = Field(
        600.0, gt=0, description="photos per minute and instance that autoscaling targets; measure yours"
    )
    capture_percent: int = Field(
        100, ge=0, le=100, description="percentage of requests and answers that are stored in S3; 0: none"
    )
    capture: str = Field(
        "",
        pattern=f"^$|{S3_URI}",
        description="s3://BUCKET/PREFIX for captured requests and answers; empty: below job.output",
    )


class SagemakerConfig(_OptionTable):
    """The TOML file: [job], [endpoint] and [tuning], and the tables of `fit` and `pipeline`."""

    job: JobConfig
    endpoint: EndpointConfig = EndpointConfig()
    tuning: TuningConfig = TuningConfig()
    prepare: PrepareConfig | None = None
    data: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()

    def hyperparameters(self) -> dict[str, str]:
        """Return the hyperparameters of a training job as text: every option that is set, and those of [export]."""
        sections = {name: getattr(self, name) for name in ("data", "model", "augment", "train")}
        set_options = {
            f"{section}.{option}": _text(value)
            for section, table in sections.items()
            for option, value in table.model_dump(exclude_unset=True).items()
        }
        variants = ",".join(self.export.variants)
        return set_options | {"export.variants": variants, "export.max_loss": _text(self.export.max_loss)}


def read_config(file: Path | None, changes: dict[str, Any]) -> SagemakerConfig:
    """Read the configuration in `file` and apply `changes` ("job.role" → …).

    Raises ConfigError, which names the invalid option.
    """
    # The table [job] always exists, so that the error for a missing option names the option.
    tables = {"job": {}} | apply_changes(read_toml(file) if file else {}, changes, SagemakerConfig)
    try:
        return SagemakerConfig.model_validate(tables)
    except ValidationError as error:
        mistake = first_mistake(error, SagemakerConfig)
        raise ConfigError(
            f"{mistake.text}; set it in the --config file or by --set {mistake.option}=VALUE (docs/aws.md)"
        ) from error


def check_s3_uri(option: str, value: str) -> str:
    """Return `value` if it is an S3 URI. Raises ConfigError, which names the option."""
    if not re.match(S3_URI, value):
        raise ConfigError(f"{option}: {value!r}: expected s3://BUCKET/PREFIX; SageMaker reads only from S3")
    return value


def _text(value: object) -> str:
    """Format a value as TOML, but strings without quotation marks."""
    if isinstance(value, tuple):
        return str(list(value))
    return str(value).lower() if isinstance(value, bool) else str(value)
