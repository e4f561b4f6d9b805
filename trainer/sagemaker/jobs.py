"""Requests that start jobs, and waiting for their end. They do not use the SDK, which the trainer's image lacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from binwatch.sagemaker.requests import translate_errors
from trainer.sagemaker.client import Aws
from trainer.sagemaker.errors import SagemakerError
from trainer.sagemaker.options import JobConfig

HOUR = 3600
POLL_S = 20.0
DONE = frozenset({"Completed", "InService", "Succeeded"})
GOING_ON = frozenset({"InProgress", "Stopping", "Creating", "Updating", "SystemUpdating", "RollingBack", "Executing"})
"""States of jobs, endpoints and pipelines that are not final. Every state that is in neither set is a failure."""


def job_name(kind: str, now: datetime) -> str:
    """A name that sorts by time and is recognised on a bill."""
    return f"binwatch-{kind}-{now:%Y%m%d-%H%M%S}"


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
    """Call `describe` until the state `status` is final, and print each new state. Raises SagemakerError on failure."""
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
    """Send a request that creates something. Raises AwsError."""
    with translate_errors(what, aws.region):
        answer: dict[str, Any] = getattr(aws.sagemaker, operation)(**request)
        return answer


def describe(aws: Aws, operation: str, what: str, **which: str) -> Callable[[], dict[str, Any]]:
    """A function that requests a description."""

    def ask() -> dict[str, Any]:
        with translate_errors(what, aws.region):
            answer: dict[str, Any] = getattr(aws.sagemaker, operation)(**which)
            return answer

    return ask


def follow(
    aws: Aws, what: str, operation: str, status: str, say: Callable[[str], None], *, stop: str, **which: str
) -> dict[str, Any]:
    """Wait for the end of a job, and print each new state.

    `which` is the job's name or ARN. After Ctrl-C the error says that the job continues, and how to `stop` it.
    """
    try:
        return wait(describe(aws, operation, what, **which), status, lambda state: say(f"{what}: {state}"))
    except KeyboardInterrupt as error:
        (name,) = which.values()
        raise SagemakerError(f"{what} continues, and costs money; to stop it: aws sagemaker {stop} {name}") from error
