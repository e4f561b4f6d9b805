"""`deploy` and `undeploy`: a real-time endpoint with data capture and autoscaling.

It uses boto3 instead of the SDK, because `deploy` is also a step of the pipeline, in an image without the SDK.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from binwatch.sagemaker.requests import AwsError, is_missing, translate_errors
from trainer.errors import ConfigError
from trainer.sagemaker import jobs, models
from trainer.sagemaker.client import Aws, ignore_existing
from trainer.sagemaker.errors import SagemakerError
from trainer.sagemaker.models import ModelSource
from trainer.sagemaker.options import SagemakerConfig

VARIANT = "AllTraffic"
SCALABLE_DIMENSION = "sagemaker:variant:DesiredInstanceCount"
SCALING_POLICY = "binwatch-photos-per-machine"
SCALE_OUT_COOLDOWN_S, SCALE_IN_COOLDOWN_S = 60, 300
"""Minimum seconds between two additions and between two removals of machines. Removals are slower."""

Say = Callable[[str], None]


def deploy(aws: Aws, config: SagemakerConfig, source: ModelSource, say: Say, *, poll_s: float = jobs.POLL_S) -> None:
    """Make the endpoint serve `source`: create it, or update only what differs.

    If an update fails, the endpoint keeps serving the old model, because SageMaker removes the old machines last.
    """
    name = _name(config)
    model = models.ensure_model(aws, config, source)
    new_config = _ensure_config(aws, config, model)
    endpoint = describe(aws, name)
    if endpoint is None:
        jobs.create(
            aws, "create_endpoint", f"endpoint {name}",
            {"EndpointName": name, "EndpointConfigName": new_config, "Tags": jobs.tags(config.job)},
        )  # fmt: skip
    elif endpoint["EndpointConfigName"] != new_config:
        _update(aws, config, endpoint["EndpointConfigName"], new_config)
    say(f"endpoint {name}: {source.version} ({model})")
    try:
        request = jobs.describe(aws, "describe_endpoint", f"endpoint {name}", EndpointName=name)
        endpoint = jobs.wait(request, "EndpointStatus", lambda state: say(f"endpoint {name}: {state}"), poll_s=poll_s)
    except SagemakerError as error:
        raise SagemakerError(
            f"endpoint {name}: {error}; what was created costs money; remove it: python -m trainer sagemaker undeploy"
        ) from error
    _set_up_autoscaling(aws, config, say)
    if endpoint["EndpointConfigName"] != new_config:
        raise SagemakerError(
            f"endpoint {name}: the update was rolled back, the old model is still served:"
            f" {endpoint.get('FailureReason', 'no reason given')}"
        )


def undeploy(aws: Aws, config: SagemakerConfig, say: Say) -> None:
    """Remove the endpoint, its configurations, their models and its autoscaling, if they exist."""
    name = _name(config)
    failures: list[str] = []

    def remove(what: str, call: Callable[[], object]) -> None:
        try:
            with translate_errors(what, aws.region):
                _unless_missing(call)
        except AwsError as error:
            failures.append(str(error))
        else:
            say(f"removed: {what}")

    scaling, sagemaker = aws.scaling, aws.sagemaker
    remove(f"autoscaling of {name}", lambda: scaling.deregister_scalable_target(**_target(name)))
    configs = _configs(aws, name)
    remove(f"endpoint {name}", lambda: sagemaker.delete_endpoint(EndpointName=name))
    for config_name, model_names in configs.items():
        remove(f"endpoint configuration {config_name}", _deleting(aws, "endpoint_config", config_name))
        for model in model_names:
            if model.startswith(models.NAME_PREFIX):
                remove(f"model {model}", _deleting(aws, "model", model))
    if failures:
        raise SagemakerError(
            f"not everything was removed, and an endpoint costs money while it exists: {'; '.join(failures)}"
        )


def describe(aws: Aws, name: str) -> dict[str, Any] | None:
    """Request the endpoint's description. Returns None if there is no such endpoint."""
    with translate_errors(f"endpoint {name}", aws.region):
        try:
            description: dict[str, Any] = aws.sagemaker.describe_endpoint(EndpointName=name)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return description


def _ensure_config(aws: Aws, config: SagemakerConfig, model: str) -> str:
    """Create the endpoint configuration unless it exists. Returns its name."""
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
            # All other content types, such as photos, are captured as bytes.
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        }
    name = models.unique_name(_name(config), request)
    with translate_errors(f"endpoint configuration {name}", aws.region), ignore_existing():
        aws.sagemaker.create_endpoint_config(EndpointConfigName=name, Tags=jobs.tags(config.job), **request)
    return name


def _update(aws: Aws, config: SagemakerConfig, old_config: str, new_config: str) -> None:
    name = _name(config)
    with translate_errors(f"endpoint {name}", aws.region):
        variants = aws.sagemaker.describe_endpoint_config(EndpointConfigName=old_config)["ProductionVariants"]
        if any(variant.get("InstanceType") != config.endpoint.instance_type for variant in variants):
            # AWS refuses a new instance type while autoscaling is registered. `deploy` registers it again later.
            _unless_missing(lambda: aws.scaling.deregister_scalable_target(**_target(name)))
        aws.sagemaker.update_endpoint(
            EndpointName=name,
            EndpointConfigName=new_config,
            RetainAllVariantProperties=True,  # for example the number of machines that autoscaling has chosen
        )


def _set_up_autoscaling(aws: Aws, config: SagemakerConfig, say: Say) -> None:
    endpoint = config.endpoint
    max_instances = max(endpoint.instances, endpoint.max_instances)
    with translate_errors(f"autoscaling of {endpoint.name}", aws.region):
        aws.scaling.register_scalable_target(
            **_target(endpoint.name), MinCapacity=endpoint.instances, MaxCapacity=max_instances
        )  # fmt: skip
        aws.scaling.put_scaling_policy(
            **_target(endpoint.name),
            PolicyName=SCALING_POLICY,
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": endpoint.photos_per_minute,
                "PredefinedMetricSpecification": {
                    "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
                },
                "ScaleOutCooldown": SCALE_OUT_COOLDOWN_S,
                "ScaleInCooldown": SCALE_IN_COOLDOWN_S,
            },
        )  # fmt: skip
    machines = f"{endpoint.instances} to {max_instances} machines"
    say(f"autoscaling: {machines}, {endpoint.photos_per_minute:g} photos a minute each")


def _configs(aws: Aws, name: str) -> dict[str, list[str]]:
    """Return the names of the endpoint's configurations, including old ones, with the names of their models."""
    prefix = models.unique_name(name, {})[: -models.DIGEST_LENGTH]
    length = len(prefix) + models.DIGEST_LENGTH
    with translate_errors(f"configurations of {name}", aws.region):
        pages = aws.sagemaker.get_paginator("list_endpoint_configs").paginate(NameContains=prefix)
        listed = [config["EndpointConfigName"] for page in pages for config in page["EndpointConfigs"]]
        # The length excludes configurations of endpoints whose names only start with this endpoint's name.
        own = [each for each in listed if each.startswith(prefix) and len(each) == length]
        return {
            each: [
                variant["ModelName"]
                for variant in aws.sagemaker.describe_endpoint_config(EndpointConfigName=each)["ProductionVariants"]
            ]
            for each in own
        }


def _deleting(aws: Aws, kind: str, name: str) -> Callable[[], object]:
    """Return a function that deletes an `endpoint_config` or a `model`."""
    parameter = {"endpoint_config": "EndpointConfigName", "model": "ModelName"}[kind]
    return lambda: getattr(aws.sagemaker, f"delete_{kind}")(**{parameter: name})


def _unless_missing(call: Callable[[], object]) -> None:
    try:
        call()
    except ClientError as error:
        if not is_missing(error):
            raise


def _target(name: str) -> dict[str, str]:
    """Return the parameters that identify the endpoint's scalable target."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{name}/variant/{VARIANT}",
        "ScalableDimension": SCALABLE_DIMENSION,
    }


def _name(config: SagemakerConfig) -> str:
    if not config.endpoint.name:
        raise ConfigError("endpoint.name: the endpoint needs a name (--set endpoint.name=NAME)")
    return config.endpoint.name
