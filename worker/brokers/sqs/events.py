"""The event queue on SQS, with boto3. Not through Celery, which would destroy raw event messages."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from binwatch.settings import Settings
from worker.brokers.base import EventMessage, EventQueue
from worker.brokers.sqs.queues import SqsQueue, attribute, failed, queue_arn, reason_attribute

logger = logging.getLogger(__name__)

VISIBILITY_S = 60
"""Longer than it takes to turn an event message into a task."""
_SID = "BinwatchEvents"
"""Id of Binwatch's statement in the queue's policy."""
_MOST = 10  # SQS's own limit, on receiving and on deleting


class SqsEventQueue(SqsQueue, EventQueue):
    """The queue that S3 sends its event messages to."""

    def __init__(self, settings: Settings) -> None:
        names = {"event_queue": settings.event_queue, "event_dead_letter_queue": settings.event_dead_letter_queue}
        super().__init__(settings, VISIBILITY_S, **names)

    def open(self) -> None:
        self.check()
        _ = self._dead_letter_url  # raises if it does not exist

    def receive(self, wait_s: int) -> list[EventMessage]:
        answer = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=_MOST,
            WaitTimeSeconds=wait_s,
            AttributeNames=["SentTimestamp"],
        )
        return [_event_message(message) for message in answer.get("Messages", ())]

    def delete(self, messages: Sequence[EventMessage]) -> None:
        for entries in _batches(messages):
            answer = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
            for failure in answer.get("Failed", ()):
                logger.warning("event message not deleted (%s): it will be redelivered", failure.get("Message"))

    def requeue(self, messages: Sequence[EventMessage], after_s: float = 0.0) -> None:
        for entries in _batches(messages, VisibilityTimeout=round(after_s)):
            self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

    def dead_letter(self, message: EventMessage, reason: str) -> None:
        self._client.send_message(
            QueueUrl=self._dead_letter_url, MessageBody=message.body, MessageAttributes=reason_attribute(reason)
        )

    def close(self) -> None:
        """Nothing to close: each call is a separate request."""

    def allow_bucket(self, bucket: str) -> str:
        """Permit S3 to send the events of `bucket`, of the same account; the rest of the queue's policy stays."""
        client, url = self._client, self._url
        try:
            arn = queue_arn(client, url)
            policy = json.loads(attribute(client, url, "Policy") or '{"Version": "2012-10-17", "Statement": []}')
            found = policy["Statement"]  # a policy may have a single statement instead of a list
            others = [one for one in (found if isinstance(found, list) else [found]) if one.get("Sid") != _SID]
            policy["Statement"] = [*others, _statement(arn, bucket)]
            client.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
        except (ClientError, BotoCoreError) as error:
            raise failed(self._name, error) from error
        return arn


def _batches(messages: Sequence[EventMessage], **more: int) -> Iterator[list[dict[str, Any]]]:
    entries = [{"Id": str(n), "ReceiptHandle": message.receipt, **more} for n, message in enumerate(messages)]
    return (entries[start : start + _MOST] for start in range(0, len(entries), _MOST))


def _event_message(message: dict[str, Any]) -> EventMessage:
    sent = message.get("Attributes", {}).get("SentTimestamp")  # in milliseconds
    sent_at = int(sent) / 1000 if sent is not None else None
    return EventMessage(message["MessageId"], message["Body"], message["ReceiptHandle"], sent_at)


def _statement(arn: str, bucket: str) -> dict[str, Any]:
    _, partition, _, _, account, _ = arn.split(":")
    return {
        "Sid": _SID,
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        # With the account, since another account may take the bucket's name once the bucket is deleted.
        "Condition": {
            "ArnEquals": {"aws:SourceArn": f"arn:{partition}:s3:::{bucket}"},
            "StringEquals": {"aws:SourceAccount": account},
        },
    }
