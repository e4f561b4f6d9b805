"""The event queue on SQS, with boto3. Celery would destroy raw event messages."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from binwatch.settings import Settings
from worker.brokers.base import EventMessage, EventQueue
from worker.brokers.sqs.queues import SqsQueue, attribute, queue_arn, reason_attribute, request_failed

logger = logging.getLogger(__name__)

VISIBILITY_S = 60
"""Longer than an event message takes to become a task."""
_STATEMENT_ID = "BinwatchEvents"
"""Id of Binwatch's statement in the policy of the queue."""
_MAX_BATCH_MESSAGES = 10  # the limit of SQS for one request


class SqsEventQueue(SqsQueue, EventQueue):
    """The queue that S3 sends its event messages to."""

    def __init__(self, settings: Settings) -> None:
        names = {"event_queue": settings.event_queue, "event_dead_letter_queue": settings.event_dead_letter_queue}
        super().__init__(settings, VISIBILITY_S, **names)

    def open(self) -> None:
        self.check()
        _ = self._dead_letter_url  # raises if it does not exist

    def receive(self, wait_s: int) -> list[EventMessage]:
        response = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=_MAX_BATCH_MESSAGES,
            WaitTimeSeconds=wait_s,
            AttributeNames=["SentTimestamp"],
        )
        messages = []
        for message in response.get("Messages", ()):
            sent = message.get("Attributes", {}).get("SentTimestamp")  # in milliseconds
            sent_at = int(sent) / 1000 if sent is not None else None
            messages.append(EventMessage(message["MessageId"], message["Body"], message["ReceiptHandle"], sent_at))
        return messages

    def delete(self, messages: Sequence[EventMessage]) -> None:
        for entries in _batches(messages):
            response = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
            for failure in response.get("Failed", ()):
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
        """Permit S3 to send the events of `bucket`, in the same account; the rest of the queue's policy stays."""
        client, url = self._client, self._url
        try:
            arn = queue_arn(client, url)
            policy = json.loads(attribute(client, url, "Policy") or '{"Version": "2012-10-17", "Statement": []}')
            statements = policy["Statement"]
            if not isinstance(statements, list):  # a policy may have a single statement instead of a list
                statements = [statements]
            others = [statement for statement in statements if statement.get("Sid") != _STATEMENT_ID]
            policy["Statement"] = [*others, _statement(arn, bucket)]
            client.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
        except (ClientError, BotoCoreError) as error:
            raise request_failed(self._name, error) from error
        return arn


def _batches(messages: Sequence[EventMessage], **fields: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the entries of batch requests for `messages`, each with the additional `fields`."""
    entries = [{"Id": str(n), "ReceiptHandle": message.receipt, **fields} for n, message in enumerate(messages)]
    for start in range(0, len(entries), _MAX_BATCH_MESSAGES):
        yield entries[start : start + _MAX_BATCH_MESSAGES]


def _statement(arn: str, bucket: str) -> dict[str, Any]:
    """Return the policy statement that permits S3 to send the events of `bucket` to the queue."""
    _, partition, _, _, account, _ = arn.split(":")
    return {
        "Sid": _STATEMENT_ID,
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
