"""The stack under test with SQS instead of RabbitMQ: moto's server behind a proxy that can fail."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.faults.stack import Stack
from worker.brokers.sqs.queues import queue_url

_DEPTHS = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]


class SqsStack(Stack):
    """A stack on SQS. `client` is a boto3 client that accesses moto directly, and never fails."""

    client: Any

    def publish(self, bodies: Iterable[str | bytes]) -> None:
        """Send event messages."""
        url = queue_url(self.client, self.settings.event_queue)
        for body in bodies:
            self.client.send_message(QueueUrl=url, MessageBody=body)

    def waiting(self, *queues: str) -> int:
        """Number of messages in the queues, including those that a worker has received and not deleted."""
        names = queues or (self.settings.event_queue, self.settings.task_queue)
        depths = [
            self.client.get_queue_attributes(QueueUrl=queue_url(self.client, name), AttributeNames=_DEPTHS)
            for name in names
        ]
        return sum(int(value) for depth in depths for value in depth["Attributes"].values())
