"""Making requests, and waiting for what they start. Without the SDK, which the trainer's image does not have."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from binwatch.sagemaker.requests import explained
from trainer.sagemaker.client import Aws
from trainer.sagemaker.errors import SagemakerError
from trainer.sagemaker.options import JobConfig

HOUR = 3600
POLL_S = 20.0
DONE = frozenset({"Completed", "InService", "Succeeded"})
GOING_ON = frozenset({"InProgress", "Stopping", "Creating", "Updating", "SystemUpdating", "RollingBack", "Executing"})
"""States of jobs, endpoints and pipelines to wait in. Whatever else SageMaker says, now or one day, is a failure."""


def job_name(kind: str, now: datetime) -> str:
    """A name that sorts by time and tells the bill's reader whose it is."""
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
        raise SagemakerError(f"{what} continues, and costs money; to stop it: aws sagemaker {stop} {name}") from error
