"""`deploy` and `undeploy`: a real-time endpoint with data capture and autoscaling.

It uses boto3 and not the SDK: `deploy` is also a step of the pipeline, in an image without the SDK.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from binwatch.sagemaker.requests import AwsError, is_missing, translate_errors
from trainer.errors import ConfigError
from trainer.sagemaker import jobs, models
from trainer.sagemaker.client import Aws, idempotent
from trainer.sagemaker.errors import SagemakerError
from trainer.sagemaker.models import ModelSource
from trainer.sagemaker.options import SagemakerConfig

VARIANT = "AllTraffic"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
POLICY = "binwatch-photos-per-machine"
SCALE_OUT_S, SCALE_IN_S = 60, 300
"""Seconds between two changes of the number of machines. It grows faster than it shrinks."""

Say = Callable[[str], None]


def deploy(aws: Aws, config: SagemakerConfig, source: ModelSource, say: Say, *, poll_s: float = jobs.POLL_S) -> None:
    """Make the endpoint serve `source`: create it, or update only what differs.

    If an update fails, the endpoint stays as it was, because SageMaker removes the old machines last.
    """
    name = _name(config)
    model = models.ensure(aws, config, source)
    wanted = _ensure_config(aws, config, model)
    found = describe(aws, name)
    if found is None:
        jobs.create(
            aws, "create_endpoint", f"endpoint {name}",
            {"EndpointName": name, "EndpointConfigName": wanted, "Tags": jobs.tags(config.job)},
        )  # fmt: skip
    elif found["EndpointConfigName"] != wanted:
        _update(aws, config, found["EndpointConfigName"], wanted)
    say(f"endpoint {name}: {source.version} ({model})")
    try:
        ask = jobs.describe(aws, "describe_endpoint", f"endpoint {name}", EndpointName=name)
        found = jobs.wait(ask, "EndpointStatus", lambda state: say(f"endpoint {name}: {state}"), poll_s=poll_s)
    except SagemakerError as error:
        raise SagemakerError(
            f"endpoint {name}: {error}; what was created costs money; remove it: python -m trainer sagemaker undeploy"
        ) from error
    _scale(aws, config, say)
    if found["EndpointConfigName"] != wanted:
        raise SagemakerError(
            f"endpoint {name}: the update was rolled back, the old model is still served:"
            f" {found.get('FailureReason', 'no reason given')}"
        )


def undeploy(aws: Aws, config: SagemakerConfig, say: Say) -> None:
    """Remove the endpoint, its configurations, their models and its autoscaling, as far as they exist."""
    name = _name(config)
    left: list[str] = []

    def remove(what: str, call: Callable[[], object]) -> None:
        try:
            with translate_errors(what, aws.region):
                _unless_missing(call)
        except AwsError as error:
            left.append(str(error))
        else:
            say(f"removed: {what}")

    scaling, sagemaker = aws.scaling, aws.sagemaker
    remove(f"autoscaling of {name}", lambda: scaling.deregister_scalable_target(**_target(name)))
    configs = _configs(aws, name)
    remove(f"endpoint {name}", lambda: sagemaker.delete_endpoint(EndpointName=name))
    for config_name, model_names in configs.items():
        remove(f"endpoint configuration {config_name}", _deleting(aws, "endpoint_config", config_name))
        for model in model_names:
            if model.startswith(models.NAMES):
                remove(f"model {model}", _deleting(aws, "model", model))
    if left:
        raise SagemakerError(
            f"not everything was removed, and an endpoint costs money while it exists: {'; '.join(left)}"
        )


def describe(aws: Aws, name: str) -> dict[str, Any] | None:
    """The endpoint's description; None if there is no such endpoint."""
    with translate_errors(f"endpoint {name}", aws.region):
        try:
            found: dict[str, Any] = aws.sagemaker.describe_endpoint(EndpointName=name)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return found


def _ensure_config(aws: Aws, config: SagemakerConfig, model: str) -> str:
    endpoint = config.endpoint
    variant = {
        "VariantName": VARIANT,
        "ModelName": model,
        "InstanceType": endpoint.instance_type,
        "InitialInstanceCount": endpoint.instances,
    }
    request: dict[str, Any] = {"ProductionVariants": [variant]}
    if endpoint.capture_percent:
        request["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": endpoint.capture_percent,
            "DestinationS3Uri": endpoint.capture or f"{config.job.output.rstrip('/')}/captured",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            # Photos are stored as bytes, not as JSON text.
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        }
    name = models.named(_name(config), request)
    with translate_errors(f"endpoint configuration {name}", aws.region), idempotent():
        aws.sagemaker.create_endpoint_config(EndpointConfigName=name, Tags=jobs.tags(config.job), **request)
    return name


def _update(aws: Aws, config: SagemakerConfig, old: str, wanted: str) -> None:
    name = _name(config)
    with translate_errors(f"endpoint {name}", aws.region):
        variants = aws.sagemaker.describe_endpoint_config(EndpointConfigName=old)["ProductionVariants"]
        if any(variant.get("InstanceType") != config.endpoint.instance_type for variant in variants):
            # AWS refuses another instance type while a variant is scaled. Autoscaling is set up again afterwards.
            _unless_missing(lambda: aws.scaling.deregister_scalable_target(**_target(name)))
        aws.sagemaker.update_endpoint(
            EndpointName=name,
            EndpointConfigName=wanted,
            RetainAllVariantProperties=True,  # such as the number of machines that autoscaling has chosen
        )


def _scale(aws: Aws, config: SagemakerConfig, say: Say) -> None:
    endpoint = config.endpoint
    most = max(endpoint.instances, endpoint.max_instances)
    with translate_errors(f"autoscaling of {endpoint.name}", aws.region):
        aws.scaling.register_scalable_target(
            **_target(endpoint.name), MinCapacity=endpoint.instances, MaxCapacity=most
        )  # fmt: skip
        aws.scaling.put_scaling_policy(
            **_target(endpoint.name),
            PolicyName=POLICY,
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": endpoint.photos_per_minute,
                "PredefinedMetricSpecification": {
                    "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
                },
                "ScaleOutCooldown": SCALE_OUT_S,
                "ScaleInCooldown": SCALE_IN_S,
            },
        )  # fmt: skip
    say(f"autoscaling: {endpoint.instances} to {most} machines, {endpoint.photos_per_minute:g} photos a minute each")


def _configs(aws: Aws, name: str) -> dict[str, list[str]]:
    """The endpoint's configurations, old ones included, and the models that they name."""
    own = models.named(name, {})[:-8]
    with translate_errors(f"configurations of {name}", aws.region):
        pages = aws.sagemaker.get_paginator("list_endpoint_configs").paginate(NameContains=own)
        names = [found["EndpointConfigName"] for page in pages for found in page["EndpointConfigs"]]
        return {
            each: [
                variant["ModelName"]
                for variant in aws.sagemaker.describe_endpoint_config(EndpointConfigName=each)["ProductionVariants"]
            ]
            for each in names
            if each.startswith(own)
            and len(each) == len(own) + 8  # not an endpoint whose name only begins with this one
        }


def _deleting(aws: Aws, kind: str, name: str) -> Callable[[], object]:
    key = {"endpoint_config": "EndpointConfigName", "model": "ModelName"}[kind]
    return lambda: getattr(aws.sagemaker, f"delete_{kind}")(**{key: name})


def _unless_missing(call: Callable[[], object]) -> None:
    try:
        call()
    except ClientError as error:
        if not is_missing(error):
            raise


def _target(name: str) -> dict[str, str]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{name}/variant/{VARIANT}",
        "ScalableDimension": DIMENSION,
    }


def _name(config: SagemakerConfig) -> str:
    if not config.endpoint.name:
        raise ConfigError("endpoint.name: the endpoint needs a name (--set endpoint.name=NAME)")
    return config.endpoint.name
