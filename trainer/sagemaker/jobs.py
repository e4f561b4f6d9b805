"""Starts jobs and waits for their end. Does not use the SDK, which is not in the trainer's image."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from binwatch.sagemaker.requests import translate_errors
from trainer.sagemaker.client import Aws
from trainer.sagemaker.errors import SagemakerError
from trainer.sagemaker.options import JobConfig

SECONDS_PER_HOUR = 3600
POLL_S = 20.0
"""Seconds between two requests for the state of a job."""
SUCCESS_STATES = frozenset({"Completed", "InService", "Succeeded"})
PENDING_STATES = frozenset(
    {"InProgress", "Stopping", "Creating", "Updating", "SystemUpdating", "RollingBack", "Executing"}
)
"""States of jobs, endpoints and pipelines that are not final. A state that is in neither set is a failure."""


def job_name(kind: str, now: datetime) -> str:
    """Return a job name that sorts by time and is recognisable on a bill."""
    return f"binwatch-{kind}-{now:%Y%m%d-%H%M%S}"


def tags(job: JobConfig) -> list[dict[str, str]]:
    """Return the tags of a job's resources in the format of AWS."""
    return [{"Key": key, "Value": value} for key, value in ({"project": "binwatch"} | job.tags).items()]


def wait(
    describe: Callable[[], dict[str, Any]],
    status: str,
    say: Callable[[str], None],
    *,
    poll_s: float = POLL_S,
) -> dict[str, Any]:
    """Call `describe` until its field `status` is a final state, and report each new state with `say`.

    Returns the last description. Raises SagemakerError on failure.
    """
    last = ""
    while True:
        description = describe()
        state = description[status]
        detail = description.get("SecondaryStatus", "")
        text = f"{state}{f': {detail}' if detail and detail != state else ''}"
        if text != last:
            say(text)
            last = text
        if state in SUCCESS_STATES:
            return description
        if state not in PENDING_STATES:
            reason = description.get("FailureReason") or "no reason given; see its log in CloudWatch"
            raise SagemakerError(f"{state}: {reason}")
        time.sleep(poll_s)


def create(aws: Aws, operation: str, what: str, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request that creates the resource `what`. Raises AwsError."""
    with translate_errors(what, aws.region):
        response: dict[str, Any] = getattr(aws.sagemaker, operation)(**request)
        return response


def describe(aws: Aws, operation: str, what: str, **identifier: str) -> Callable[[], dict[str, Any]]:
    """Return a function that requests the description of the resource `what`."""

    def request() -> dict[str, Any]:
        with translate_errors(what, aws.region):
            response: dict[str, Any] = getattr(aws.sagemaker, operation)(**identifier)
            return response

    return request


def follow(
    aws: Aws, what: str, operation: str, status: str, say: Callable[[str], None], *, stop: str, **identifier: str
) -> dict[str, Any]:
    """Wait for the end of a job, and report each new state with `say`.

    `identifier` is the job's name or ARN. On Ctrl-C, the error says that the job continues, and how to `stop` it.
    """
    try:
        return wait(describe(aws, operation, what, **identifier), status, lambda state: say(f"{what}: {state}"))
    except KeyboardInterrupt as error:
        (name,) = identifier.values()
        raise SagemakerError(f"{what} continues, and costs money; to stop it: aws sagemaker {stop} {name}") from error
