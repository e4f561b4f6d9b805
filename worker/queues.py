"""The SQS queues: their creation for a machine of one's own, and the check that they are there and safe to use."""

from __future__ import annotations

import json
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, SSLError

from binwatch.aws import make_client
from binwatch.errors import OutageError
from binwatch.settings import Settings

MAX_RECEIVES = 200
"""A message received this often without being deleted ends in the dead-letter queue.

Each worker that stops gives back what it has just received, which counts, so a fleet that is restarted a few times must
stay far below. What is wrong with a message itself is found out by other means, long before.
"""
TASK_VISIBILITY_S = 300
"""Longer than a group takes, its wait for another try included; after a crash a task comes again this much later."""
EVENT_VISIBILITY_S = 60
"""Longer than an event message takes to become a task."""
_SID = "BinwatchEvents"
"""Id of the statement in the event queue's policy that is ours."""
_WEEKS_TWO = str(14 * 24 * 3600)  # the longest that SQS keeps a message

_CHECK = "check BINWATCH_SQS_ENDPOINT_URL, BINWATCH_REGION, the credentials and the network"
_CHECK_TLS = "if that certificate is of your own authority, name its file in AWS_CA_BUNDLE or SSL_CERT_FILE"


class QueueError(OutageError):
    """A queue is missing or would lose messages."""


class NotSqs(BotoCoreError):  # type: ignore[misc]  # boto3 has no types
    """Something else has answered, such as a proxy with its own page."""

    fmt = "what answered {operation} is not SQS but sends {kind!r}"


def sqs_client(settings: Settings) -> Any:
    """A boto3 client for SQS that answers within the settings' patience."""
    client = make_client(
        "sqs",
        endpoint_url=settings.sqs_endpoint_url,
        region_name=settings.region,
        config=Config(**client_config(settings)),
    )
    refuse_strangers(client)
    return client


def refuse_strangers(client: Any) -> None:
    """Have a client of SQS raise NotSqs where boto3 would take any page with status 200 for an empty answer.

    A message that was not sent would be taken for sent, and lost.
    """
    client.meta.events.register("after-call.sqs", _check_answer)


def _check_answer(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    if http_response.status_code >= 300:
        return
    try:
        sound = isinstance(json.loads(http_response.content or b"{}"), dict)
    except ValueError:
        sound = False
    if not sound or (model.name == "SendMessage" and "MessageId" not in parsed):
        raise NotSqs(operation=model.name, kind=http_response.headers.get("content-type", "nothing"))


def client_config(settings: Settings) -> dict[str, Any]:
    """How patient clients of SQS are, also Celery's: a call to receive may wait 20 s for its answer."""
    return {
        "connect_timeout": settings.s3_timeout_s,
        "read_timeout": settings.s3_timeout_s + 20,
        "retries": {"mode": "standard", "total_max_attempts": 3},
    }


def create_queues(client: Any, settings: Settings) -> None:
    """Create the event queue and the task queue, each with its dead-letter queue. Raises QueueError if SQS refuses.

    A queue that is there keeps its attributes; only a redrive policy is added where there is none.
    """
    for name, dead, visibility_s in (
        (settings.event_queue, settings.event_dead_letter_queue, EVENT_VISIBILITY_S),
        (settings.task_queue, settings.task_queue + "-dead", TASK_VISIBILITY_S),
    ):
        try:
            dead_url = _ensure(client, dead, {"MessageRetentionPeriod": _WEEKS_TWO})
            redrive = {"deadLetterTargetArn": queue_arn(client, dead_url), "maxReceiveCount": str(MAX_RECEIVES)}
            policy = {"RedrivePolicy": json.dumps(redrive)}
            kept = {"MessageRetentionPeriod": _WEEKS_TWO, "VisibilityTimeout": str(visibility_s)}
            url = _ensure(client, name, kept | policy)
            if not _has_redrive(client, url):
                client.set_queue_attributes(QueueUrl=url, Attributes=policy)
        except (ClientError, BotoCoreError) as error:
            raise QueueError(f"queue {name!r}: {error}; {_advice(error)}") from error


def allow_bucket(client: Any, name: str, bucket: str) -> str:
    """Let S3 send the events of `bucket`, of the same account, to the queue; returns the queue's ARN.

    The other statements of the queue's policy stay. Raises QueueError.
    """
    url = queue_url(client, name)
    try:
        arn = queue_arn(client, url)
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])
        policy = json.loads(answer.get("Attributes", {}).get("Policy") or '{"Version": "2012-10-17", "Statement": []}')
        found = policy["Statement"]  # a single one may stand there by itself
        others = [one for one in (found if isinstance(found, list) else [found]) if one.get("Sid") != _SID]
        policy["Statement"] = [*others, _statement(arn, bucket)]
        client.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    except (ClientError, BotoCoreError) as error:
        raise QueueError(f"queue {name!r}: {error}; {_advice(error)}") from error
    return arn


def _statement(arn: str, bucket: str) -> dict[str, Any]:
    _, partition, _, _, account, _ = arn.split(":")
    return {
        "Sid": _SID,
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        # With the account, since a bucket's name may be anybody's once the bucket is deleted.
        "Condition": {
            "ArnEquals": {"aws:SourceArn": f"arn:{partition}:s3:::{bucket}"},
            "StringEquals": {"aws:SourceAccount": account},
        },
    }


def _ensure(client: Any, name: str, attributes: dict[str, str]) -> str:
    """URL of the queue, which is made if it is not there. SQS refuses to make it again with other attributes."""
    try:
        return str(client.get_queue_url(QueueName=name)["QueueUrl"])
    except client.exceptions.QueueDoesNotExist:
        return str(client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])


def check_queues(client: Any, settings: Settings) -> tuple[str, str]:
    """URLs of the event queue and its dead-letter queue. Raises QueueError if one is missing or has no redrive."""
    url = queue_url(client, settings.event_queue)
    checked = {settings.event_queue: url}
    if settings.broker_url.get_secret_value().startswith("sqs"):
        checked[settings.task_queue] = queue_url(client, settings.task_queue)
    for name, found in checked.items():
        if not _has_redrive(client, found):
            raise QueueError(
                f"queue {name!r} has no redrive policy: a message that cannot be handled would be deleted, or come"
                " again for ever; set one, or have it set by: python -m worker setup"
            )
    return url, queue_url(client, settings.event_dead_letter_queue)


def _has_redrive(client: Any, url: str) -> bool:
    answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
    return bool(answer.get("Attributes", {}).get("RedrivePolicy"))


def queue_url(client: Any, name: str) -> str:
    """URL of the queue. Raises QueueError if it cannot be had."""
    try:
        return str(client.get_queue_url(QueueName=name)["QueueUrl"])
    except client.exceptions.QueueDoesNotExist as error:
        raise QueueError(f"queue {name!r} does not exist; create it with: python -m worker setup") from error
    except (ClientError, BotoCoreError) as error:
        raise QueueError(f"queue {name!r}: {error}; {_advice(error)}") from error


def _advice(error: Exception) -> str:
    return _CHECK_TLS if isinstance(error, SSLError) else _CHECK


def queue_arn(client: Any, url: str) -> str:
    """ARN of the queue at `url`."""
    attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    return str(attributes["QueueArn"])
