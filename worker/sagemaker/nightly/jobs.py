"""Requests for SageMaker's models and transform jobs, with boto3.

A job is started with one request, whereas the SDK's Transformer would upload the photos and wait. All names are
determined by the run, so each request can be repeated: an existing model or job is not created again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from botocore.exceptions import ClientError

from binwatch.errors import SettingsError
from binwatch.sagemaker.requests import aws_client, is_missing, is_taken, translate_errors
from binwatch.settings import Settings, advice

CONTENT_TYPE = "application/x-image"
_TAGS = [{"Key": "project", "Value": "binwatch"}]
_RUNNING_STATUSES = frozenset({"InProgress", "Stopping"})


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of a transform job."""

    name: str
    status: str
    reason: str | None
    created: datetime
    started: datetime | None
    ended: datetime | None

    @property
    def running(self) -> bool:
        """Whether the job costs money now, or soon will."""
        return self.status in _RUNNING_STATUSES

    @property
    def seconds(self) -> float:
        """Seconds billed for each instance; 0 until the job has ended."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else 0.0


class TransformJobs:
    """Sends requests to SageMaker. Raises AwsError with the name of the model or job."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._region = settings.region
        self._client = aws_client("sagemaker", settings.region, settings.sagemaker.endpoint_url)

    def make_model(self, name: str, archive_url: str, environment: Mapping[str, str]) -> None:
        """Create a model unless it exists."""
        role, image = role_and_image(self._settings)
        container = {"Image": image, "ModelDataUrl": archive_url, "Environment": dict(environment)}
        with translate_errors(f"model {name}", self._region):
            try:
                self._client.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role, Tags=_TAGS)
            except ClientError as error:
                if not is_taken(error):
                    raise

    def start(self, name: str, model: str, *, manifest_url: str, outputs_url: str) -> None:
        """Start a job unless it exists."""
        settings = self._settings
        with translate_errors(f"transform job {name}", self._region):
            try:
                self._client.create_transform_job(
                    TransformJobName=name,
                    ModelName=model,
                    MaxConcurrentTransforms=settings.sagemaker.concurrent_transforms,
                    MaxPayloadInMB=settings.sagemaker.max_payload_mb,
                    BatchStrategy="SingleRecord",
                    ModelClientConfig={
                        "InvocationsTimeoutInSeconds": settings.sagemaker.invocation_timeout_s,
                        "InvocationsMaxRetries": settings.sagemaker.invocation_retries,
                    },
                    TransformInput={
                        "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": manifest_url}},
                        "ContentType": CONTENT_TYPE,
                        "CompressionType": "None",
                        "SplitType": "None",
                    },
                    TransformOutput={
                        "S3OutputPath": outputs_url,
                        "Accept": "application/json",
                        "AssembleWith": "None",
                    },
                    TransformResources={
                        "InstanceType": settings.sagemaker.instance_type,
                        "InstanceCount": settings.sagemaker.instance_count,
                    },
                    Tags=_TAGS,
                )
            except ClientError as error:
                if not is_taken(error):
                    raise

    def state(self, name: str) -> JobState | None:
        """Return the state of a job; None if it was never started."""
        with translate_errors(f"transform job {name}", self._region):
            try:
                description = self._client.describe_transform_job(TransformJobName=name)
            except ClientError as error:
                if is_missing(error):
                    return None
                raise
        return JobState(
            name,
            description["TransformJobStatus"],
            description.get("FailureReason") or None,
            description["CreationTime"],
            description.get("TransformStartTime"),
            description.get("TransformEndTime"),
        )

    def stop(self, name: str) -> None:
        """Stop a job."""
        with translate_errors(f"transform job {name}", self._region):
            self._client.stop_transform_job(TransformJobName=name)

    def delete_model(self, name: str) -> None:
        """Delete a model, if it exists."""
        with translate_errors(f"model {name}", self._region):
            try:
                self._client.delete_model(ModelName=name)
            except ClientError as error:
                if not is_missing(error):
                    raise


def role_and_image(settings: Settings) -> tuple[str, str]:
    """Return the role and the image that a model needs. Raises SettingsError with the names of missing settings."""
    role, image = settings.sagemaker.role, settings.sagemaker.image
    if not role or not image:
        unset = [name for name, value in (("sagemaker_role", role), ("sagemaker_image", image)) if not value]
        raise SettingsError(f"the backend sagemaker needs more settings: {advice(*unset)} (docs/sagemaker.md)")
    return role, image
