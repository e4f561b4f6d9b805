"""Requests for training and tuning jobs, and waiting for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from binwatch.sagemaker.requests import explained
from trainer.sagemaker import metric_lines
from trainer.sagemaker.client import Aws
from trainer.sagemaker.errors import SagemakerError
from trainer.sagemaker.layout import DATA, ROOT, WEIGHTS
from trainer.sagemaker.options import JobConfig, SagemakerConfig
from trainer.sagemaker.space import INTEGERS, Ranges, ranges

HOUR = 3600
POLL_S = 20.0
DONE = frozenset({"Completed", "InService", "Succeeded"})
GOING_ON = frozenset({"InProgress", "Stopping", "Creating", "Updating", "SystemUpdating", "RollingBack", "Executing"})
"""States of jobs, endpoints and pipelines to wait in. Whatever else SageMaker says, now or one day, is a failure."""


def job_name(kind: str, now: datetime) -> str:
    """A name that sorts by time and tells the bill's reader whose it is."""
    return f"binwatch-{kind}-{now:%Y%m%d-%H%M%S}"


def training_request(config: SagemakerConfig, data: str, weights: str | None = None) -> dict[str, Any]:
    """CreateTrainingJob without a name: what a training job, a tuning job and a pipeline's step have in common.

    `data` is the S3 prefix that holds what `prepare` wrote, or a pipeline's reference to it; `weights` that of a file
    to start from.
    """
    job = config.job
    channels = {DATA: data} | ({WEIGHTS: weights} if weights else {})
    request: dict[str, Any] = {
        "AlgorithmSpecification": {
            "TrainingImage": job.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": metric_lines.DEFINITIONS,
        },
        "RoleArn": job.role,
        "HyperParameters": config.hyperparameters(),
        "InputDataConfig": [_channel(name, uri) for name, uri in channels.items()],
        "OutputDataConfig": {"S3OutputPath": job.output.rstrip("/") + "/models"},
        "ResourceConfig": {
            "InstanceType": job.instance_type,
            "InstanceCount": job.instances,
            "VolumeSizeInGB": job.volume_gb,
        },
        "StoppingCondition": _stopping(job),
        "EnableManagedSpotTraining": job.spot,
        "Tags": tags(job),
    }
    if job.subnets:
        request["VpcConfig"] = {"Subnets": list(job.subnets), "SecurityGroupIds": list(job.security_groups)}
    return request


def with_checkpoints(request: dict[str, Any], uri: Any) -> dict[str, Any]:
    """Add where a job keeps its checkpoints: a place of its own, where it finds them after an interruption."""
    return request | {"CheckpointConfig": {"S3Uri": uri, "LocalPath": str(ROOT / "checkpoints")}}


def tuning_request(config: SagemakerConfig, data: str, weights: str | None = None) -> dict[str, Any]:
    """CreateHyperParameterTuningJob without a name. The search spaces are those of `tune`."""
    training = training_request(config, data, weights)
    tagged, given = training.pop("Tags"), training.pop("HyperParameters")
    searched, fixed = ranges(config.tuning.preset)
    names = {found["Name"] for kind in searched.values() for found in kind}
    static = {name: value for name, value in (given | fixed).items() if name not in names}
    return {
        "HyperParameterTuningJobConfig": {
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": metric_lines.OBJECTIVE},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": config.tuning.trials,
                "MaxParallelTrainingJobs": config.tuning.parallel,
            },
            "ParameterRanges": searched,
            **_strategy(config, searched),
        },
        "TrainingJobDefinition": training | {"StaticHyperParameters": static},
        "Tags": tagged,
    }


def tags(job: JobConfig) -> list[dict[str, str]]:
    """Tags as AWS wants them."""
    return [{"Key": key, "Value": value} for key, value in ({"project": "binwatch"} | job.tags).items()]


def wait(
    describe: Callable[[], dict[str, Any]],
    status: str,
    say: Callable[[str], None],
    *,
    poll_s: float = POLL_S,
) -> dict[str, Any]:
    """Ask until what `describe` describes is done, and say each new state. Raises SagemakerError if it failed."""
    last = ""
    while True:
        found = describe()
        state = found[status]
        detail = found.get("SecondaryStatus", "")
        now = f"{state}{f': {detail}' if detail and detail != state else ''}"
        if now != last:
            say(now)
            last = now
        if state in DONE:
            return found
        if state not in GOING_ON:
            reason = found.get("FailureReason") or "no reason given; see its log in CloudWatch"
            raise SagemakerError(f"{state}: {reason}")
        time.sleep(poll_s)


def create(aws: Aws, operation: str, what: str, request: dict[str, Any]) -> dict[str, Any]:
    """Make something. Raises AwsError."""
    with explained(what, aws.region):
        answer: dict[str, Any] = getattr(aws.sagemaker, operation)(**request)
        return answer


def describe(aws: Aws, operation: str, what: str, **which: str) -> Callable[[], dict[str, Any]]:
    """A function that asks how something is."""

    def ask() -> dict[str, Any]:
        with explained(what, aws.region):
            answer: dict[str, Any] = getattr(aws.sagemaker, operation)(**which)
            return answer

    return ask


@contextmanager
def going_on(what: str, stop: str, name: str) -> Iterator[None]:
    """Whoever stops waiting is told that the job does not stop with it."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise SagemakerError(f"{what} goes on, and costs money; to stop it: aws sagemaker {stop} {name}") from error


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "InputMode": "File", "DataSource": {"S3DataSource": source}}


def _strategy(config: SagemakerConfig, searched: Ranges) -> dict[str, Any]:
    strategy = config.tuning.strategy
    if strategy != "Hyperband":
        return {"Strategy": strategy, "TrainingJobEarlyStoppingType": "Auto"}
    most = [int(found["MaxValue"]) for found in searched.get(INTEGERS, ()) if found["Name"] == "train.epochs"]
    # It stops trials itself and refuses to be helped; among them those that have said their metric so often. That
    # must be never: a trial says it after each epoch and once more, and then has its bundle to write.
    resources = {"HyperbandStrategyConfig": {"MaxResource": max(most, default=config.train.epochs) + 2}}
    return {"Strategy": strategy, "TrainingJobEarlyStoppingType": "Off", "StrategyConfig": resources}


def _stopping(job: JobConfig) -> dict[str, int]:
    run = round(job.max_hours * HOUR)
    waiting = {"MaxWaitTimeInSeconds": max(round(job.spot_wait_hours * HOUR), run)} if job.spot else {}
    return {"MaxRuntimeInSeconds": run} | waiting
