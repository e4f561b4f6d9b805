"""The SQS queues: their creation for a machine of one's own, and the check that they are there and safe to use."""

from __future__ import annotations

import json
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from binwatch.errors import BinwatchError
from binwatch.settings import Settings

MAX_RECEIVES = 20
"""A message received this often without being deleted ends in the dead-letter queue (RabbitMQ's default, too)."""
TASK_VISIBILITY_S = 300
"""Longer than a group takes, its wait for another try included; after a crash a task comes again this much later."""
EVENT_VISIBILITY_S = 60
"""Longer than an event message takes to become a task."""
_WEEKS_TWO = str(14 * 24 * 3600)  # the longest that SQS keeps a message


class QueueError(BinwatchError):
    """A queue is missing or would lose messages."""


def sqs_client(settings: Settings) -> Any:
    """A boto3 client for SQS that answers within the settings' patience."""
    return boto3.client(
        "sqs",
        endpoint_url=settings.sqs_endpoint_url,
        region_name=settings.region,
        config=Config(connect_timeout=settings.s3_timeout_s, read_timeout=settings.s3_timeout_s + 20),
    )


def create_queues(client: Any, settings: Settings) -> None:
    """Create the event queue and the task queue, each with its dead-letter queue. Harmless if they exist."""
    for name, dead, visibility_s in (
        (settings.event_queue, settings.event_dead_letter_queue, EVENT_VISIBILITY_S),
        (settings.task_queue, settings.task_queue + "-dead", TASK_VISIBILITY_S),
    ):
        dead_url = client.create_queue(QueueName=dead, Attributes={"MessageRetentionPeriod": _WEEKS_TWO})["QueueUrl"]
        redrive = {"deadLetterTargetArn": queue_arn(client, dead_url), "maxReceiveCount": str(MAX_RECEIVES)}
        client.create_queue(
            QueueName=name,
            Attributes={
                "MessageRetentionPeriod": _WEEKS_TWO,
                "VisibilityTimeout": str(visibility_s),
                "RedrivePolicy": json.dumps(redrive),
            },
        )


def check_queues(client: Any, settings: Settings) -> tuple[str, str]:
    """URLs of the event queue and its dead-letter queue. Raises QueueError if one is missing or has no redrive."""
    urls = {name: queue_url(client, name) for name in (settings.event_queue, settings.task_queue)}
    for name, url in urls.items():
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
        if "RedrivePolicy" not in answer.get("Attributes", {}):
            raise QueueError(
                f"queue {name!r} has no redrive policy: a message that Celery rejects would be deleted; set one"
            )
    return urls[settings.event_queue], queue_url(client, settings.event_dead_letter_queue)


def queue_url(client: Any, name: str) -> str:
    """URL of the queue. Raises QueueError if it cannot be had."""
    try:
        return str(client.get_queue_url(QueueName=name)["QueueUrl"])
    except (ClientError, BotoCoreError) as error:
        raise QueueError(f"queue {name!r}: {error}; create it with: python -m worker setup") from error


def queue_arn(client: Any, url: str) -> str:
    """ARN of the queue at `url`."""
    attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    return str(attributes["QueueArn"])
