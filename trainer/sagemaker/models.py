"""SageMaker models: a container image and a bundle, with a name that is derived from both."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from binwatch.objects import Objects
from binwatch.registry import Registry
from binwatch.sagemaker.requests import translate_errors
from binwatch.settings import Settings
from trainer.errors import ConfigError
from trainer.sagemaker.client import Aws, ignore_existing
from trainer.sagemaker.jobs import tags
from trainer.sagemaker.options import SagemakerConfig

NAME_PREFIX = "binwatch-"
"""Prefix of the names of models and endpoint configurations that Binwatch creates. It removes no others."""
DIGEST_LENGTH = 8
"""Number of hexadecimal digits at the end of these names."""


@dataclass(frozen=True)
class ModelSource:
    """The location of a bundle in S3: a folder of its files, or a training job's model.tar.gz."""

    version: str
    uri: str

    @property
    def container(self) -> dict[str, Any]:
        """The fields of CreateModel that locate the bundle."""
        if self.uri.endswith(".tar.gz"):
            return {"ModelDataUrl": self.uri}
        location = {"S3Uri": self.uri, "S3DataType": "S3Prefix", "CompressionType": "None"}
        return {"ModelDataSource": {"S3DataSource": location}}


def source_of(model: str | None, settings: Settings) -> ModelSource:
    """Locate a model: a published version, an s3://…/model.tar.gz, or by default the model in use.

    Raises ConfigError.
    """
    if model and model.startswith("s3://"):
        if not model.endswith(".tar.gz"):
            raise ConfigError(f"{model}: expected a training job's model.tar.gz, or the version of a published model")
        return ModelSource(model.split("/")[-3] if model.count("/") > 4 else "model", model)
    registry = Registry(Objects(settings), settings.bucket, settings.models_prefix)
    if model is None:
        current = registry.current()
        if current is None:
            raise ConfigError(
                f"no model is in use in s3://{settings.bucket}/{settings.models_prefix}: promote one, or name one"
            )
        model = current.version
    registry.card(model)
    return ModelSource(model, f"s3://{settings.bucket}/{settings.models_prefix}{model}/")


def ensure_model(aws: Aws, config: SagemakerConfig, source: ModelSource) -> str:
    """Create the endpoint's SageMaker model unless it exists. Returns its name.

    Two endpoints never share a model, because removing one endpoint would remove the other's model.
    """
    if not config.endpoint.image:
        raise ConfigError("endpoint.image: the URI of the worker's image in ECR is needed")
    request: dict[str, Any] = {
        "PrimaryContainer": {
            "Image": config.endpoint.image,
            "Environment": aws.serving_environment,
            **source.container,
        },
        "ExecutionRoleArn": config.endpoint.role or config.job.role,
    }
    if config.job.subnets:
        request["VpcConfig"] = {
            "Subnets": list(config.job.subnets),
            "SecurityGroupIds": list(config.job.security_groups),
        }
    name = unique_name(source.version, request | {"endpoint": config.endpoint.name})
    with translate_errors(f"model {name}", aws.region), ignore_existing():
        aws.sagemaker.create_model(ModelName=name, Tags=tags(config.job), **request)
    return name


def unique_name(label: str, request: dict[str, Any]) -> str:
    """Derive a name of at most 63 characters from the request, so that repeating a request creates nothing new."""
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:DIGEST_LENGTH]
    plain = re.sub(r"[^a-zA-Z0-9]+", "-", label).strip("-")
    return f"{NAME_PREFIX}{plain[:43]}".rstrip("-") + f"-{digest}"
