"""Settings for SageMaker, and the environment that SageMaker provides in a container."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from binwatch.addresses import check_endpoint
from binwatch.environment import PREFIX, EnvironmentSettings

MAX_TRANSFORM_MB = 100
"""SageMaker's maximum for the requests in flight to an instance times their maximum size, in MB."""
_PREFIX = f"{PREFIX}SAGEMAKER_"


class SagemakerSettings(EnvironmentSettings):
    """Settings BINWATCH_SAGEMAKER_…: transform jobs of the nightly run, and the serving container."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX)

    endpoint_url: str | None = Field(None, description="SageMaker endpoint; unset for AWS")
    role: str | None = Field(
        None,
        description="ARN of the role that transform jobs assume",
        examples=["arn:aws:iam::123456789012:role/binwatch-transform"],
    )
    image: str | None = Field(
        None,
        description="worker image in ECR that transform jobs run",
        examples=["123456789012.dkr.ecr.eu-central-1.amazonaws.com/binwatch-worker:1"],
    )
    instance_type: str = Field("ml.m5.xlarge", description="instance type of transform jobs")
    instance_count: int = Field(1, ge=1, le=100, description="number of instances of one transform job")
    price_per_hour: float = Field(
        0.0, ge=0, description="price of one instance per hour, in your currency; 0: costs are given in hours"
    )
    photos_per_second: float = Field(
        20.0, gt=0, description="photos that one instance counts per second, for estimates before the first run"
    )
    concurrent_transforms: int = Field(
        16, ge=1, le=100, description="largest number of requests in flight to one instance"
    )
    max_payload_mb: int = Field(
        6, ge=1, le=100, description="largest photo that SageMaker counts, in MB; local workers count larger ones"
    )
    invocation_timeout_s: int = Field(60, ge=1, le=3600, description="timeout of one photo, in seconds")
    invocation_retries: int = Field(3, ge=0, le=3, description="retries of a photo without an answer")
    job_photos: int = Field(50_000, ge=1, le=500_000, description="largest number of photos in one transform job")
    job_hours: float = Field(12.0, gt=0, description="hours after which a transform job is stopped")
    folder: Path = Field(Path("/opt/ml"), description="folder in which SageMaker provides the container's files")

    @field_validator("endpoint_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is not None:
            check_endpoint(value)
        return value

    @model_validator(mode="after")
    def _requests_fit(self) -> Self:
        if self.concurrent_transforms * self.max_payload_mb > MAX_TRANSFORM_MB:
            raise ValueError(
                f"{_PREFIX}CONCURRENT_TRANSFORMS × {_PREFIX}MAX_PAYLOAD_MB is over {MAX_TRANSFORM_MB},"
                " SageMaker's limit; lower one of the two"
            )
        return self


class TransformEnvironment(BaseSettings):
    """Environment variables that SageMaker sets for a serving container in a batch transform job."""

    model_config = SettingsConfigDict(env_prefix="SAGEMAKER_", extra="ignore", frozen=True, env_ignore_empty=True)

    batch: bool = False
    max_concurrent_transforms: int = 0
