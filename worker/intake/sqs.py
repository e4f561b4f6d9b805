"""Event messages from SQS, by boto3, ten to a call. Never through Celery, which would destroy raw messages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from worker.intake.received import Received

logger = logging.getLogger(__name__)

_MOST = 10  # SQS's own limit, on receiving and on deleting
_REASON_LENGTH = 1024


class SqsEvents:
    """The queue that S3 sends its event messages to, and the dead-letter queue beside it."""

    def __init__(self, client: Any, queue_url: str, dead_letter_url: str) -> None:
        self._client = client
        self._url = queue_url
        self._dead_letter_url = dead_letter_url

    def receive(self, wait_s: int) -> list[Received]:
        """Up to ten messages; waits up to `wait_s` seconds for the first."""
        answer = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=_MOST,
            WaitTimeSeconds=wait_s,
            AttributeNames=["SentTimestamp"],
        )
        return [_received(message) for message in answer.get("Messages", ())]

    def delete(self, messages: Sequence[Received]) -> None:
        """Take handled messages off the queue. One that stays comes again, which does no harm."""
        for start in range(0, len(messages), _MOST):
            batch = messages[start : start + _MOST]
            entries = [{"Id": str(n), "ReceiptHandle": message.receipt} for n, message in enumerate(batch)]
            answer = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
            for failure in answer.get("Failed", ()):
                logger.warning("event message not deleted (%s): it will come again", failure.get("Message"))

    def give_back(self, messages: Sequence[Received], after_s: float = 0.0) -> None:
        """Have messages come again after so many seconds, instead of after the queue's visibility time-out."""
        for start in range(0, len(messages), _MOST):
            entries = [
                {"Id": str(n), "ReceiptHandle": message.receipt, "VisibilityTimeout": round(after_s)}
                for n, message in enumerate(messages[start : start + _MOST])
            ]
            self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

    def set_aside(self, message: Received, reason: str) -> None:
        """Copy a message that cannot be handled to the dead-letter queue, with the reason. The original stays."""
        self._client.send_message(
            QueueUrl=self._dead_letter_url,
            MessageBody=message.body,
            MessageAttributes={"reason": {"DataType": "String", "StringValue": printable(reason)}},
        )

    def close(self) -> None:
        """Nothing is held: each call is a request of its own."""


def _received(message: dict[str, Any]) -> Received:
    sent = message.get("Attributes", {}).get("SentTimestamp")  # in milliseconds
    sent_at = int(sent) / 1000 if sent is not None else None
    return Received(message["MessageId"], message["Body"], message["ReceiptHandle"], sent_at)


def printable(text: str) -> str:
    """SQS refuses control characters and empty attributes."""
    clean = "".join(c if c.isprintable() else "?" for c in text.encode(errors="replace").decode())
    return clean[:_REASON_LENGTH] or "unknown"
