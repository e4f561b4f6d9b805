"""A dead-letter queue of SQS."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from worker.brokers.base import DeadLetter, DeadLetterQueue

_LISTING_VISIBILITY_S = 60
"""Visibility timeout of received messages, in case this process dies before it makes them visible again."""


class SqsDeadLetters(DeadLetterQueue):
    """A dead-letter queue of SQS. `source_url` is the URL of the queue that its messages came from."""

    def __init__(self, client: Any, name: str, url: str, source_url: str) -> None:
        self._client = client
        self._name = name
        self._url = url
        self._source_url = source_url

    def messages(self) -> list[DeadLetter]:
        with self._receive_all() as messages:
            return [self._to_dead_letter(message) for message in messages]

    def redrive(self) -> int:
        with self._receive_all() as messages:
            for message in messages:
                attributes = {k: v for k, v in message.get("MessageAttributes", {}).items() if k != "reason"}
                self._client.send_message(
                    QueueUrl=self._source_url, MessageBody=message["Body"], MessageAttributes=attributes
                )
                self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
            return len(messages)

    def delete(self, wanted: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
        with self._receive_all() as messages:
            for message in messages:
                letter = self._to_dead_letter(message)
                if wanted(letter):
                    self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
                    yield letter

    @contextmanager
    def _receive_all(self) -> Iterator[list[dict[str, Any]]]:
        """Receive all messages. At the end of the block, those that were not deleted become visible at once."""
        received: dict[str, dict[str, Any]] = {}
        receive = partial(
            self._client.receive_message,
            QueueUrl=self._url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=_LISTING_VISIBILITY_S,
            WaitTimeSeconds=1,  # without a wait, SQS queries only some of its servers, and the queue may look empty
            MessageAttributeNames=["All"],
            AttributeNames=["ApproximateReceiveCount"],
        )
        # Until no message is new, not until none is left: in a very long queue, the first ones reappear meanwhile.
        while new := {m["MessageId"]: m for m in receive().get("Messages", []) if m["MessageId"] not in received}:
            received |= new
        messages = list(received.values())
        try:
            yield messages
        finally:
            for message in messages:
                with suppress(self._client.exceptions.ClientError):  # it was deleted
                    self._client.change_message_visibility(
                        QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                    )

    def _to_dead_letter(self, message: dict[str, Any]) -> DeadLetter:
        reason = message.get("MessageAttributes", {}).get("reason", {}).get("StringValue")
        body = message["Body"]
        if reason is None:
            reason, body = _decode_task(body)
        return DeadLetter(self._name, reason or "delivered too often", body)


def _decode_task(body: str) -> tuple[str | None, str]:
    """Return reason and content of a Celery task, which kombu encodes as base64; other bodies are unchanged."""
    try:
        envelope = json.loads(body if body.startswith("{") else base64.b64decode(body, validate=True))
        content = base64.b64decode(envelope["body"]).decode()
        reason = envelope["headers"].get("reason")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, body
    return reason, content
