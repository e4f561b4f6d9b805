"""Celery's transport for SQS with boto3 only, without kombu's own HTTP client.

kombu polls SQS on Celery's event loop with its own HTTP client (pycurl). One failed ReceiveMessage then stops the
worker, or leaves it running without polling. The client also reads different certificate and proxy settings.
kombu can poll with boto3 instead, on Celery's loop for brokers without an event loop. This module uses that loop, and
handles each failed request.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from celery.worker import state
from kombu.transport import SQS, virtual

from binwatch.errors import BinwatchError, describe_error
from worker.brokers.internals import SqsChannel
from worker.brokers.sqs.queues import reason_attribute, reject_foreign_responses

logger = logging.getLogger(__name__)

TRANSPORT = "worker.brokers.sqs.transport:SqsTransport"
"""Value of Celery's setting `broker_transport`."""
TASK_POLLS = "polls"
"""Transport option: the `TaskPolls` object to which the result of each ReceiveMessage is reported."""

MAX_FAILING_S = 30.0
"""A worker is unhealthy if its polls have been failing for longer."""
_MAX_BACKOFF_S = 5.0
"""Maximum pause after a failed poll."""
_GONE_ERROR_CODES = frozenset({"ReceiptHandleIsInvalid", "InvalidParameterValue"})
"""Error codes of SQS for a message that can no longer be deleted: it was deleted, or another worker has it."""


class TaskPollsFailing(BinwatchError):
    """No task can be received from SQS."""


class TaskPolls:
    """Tracks whether polls for tasks succeed. One thread polls; any thread may check."""

    def __init__(self) -> None:
        self._failing: tuple[float, Exception] | None = None
        """Time of the first failure, by the monotonic clock, and the last error; None if the last poll succeeded."""

    def succeeded(self) -> None:
        """Record that SQS has answered a poll."""
        self._failing = None

    def failed(self, error: Exception) -> None:
        """Record that a poll has failed."""
        self._failing = (self._failing[0] if self._failing else time.monotonic(), error)

    def check(self) -> None:
        """Raise TaskPollsFailing if all polls have failed for longer than MAX_FAILING_S."""
        since, error = self._failing or (time.monotonic(), None)
        failing_s = time.monotonic() - since
        if failing_s > MAX_FAILING_S:
            raise TaskPollsFailing(
                f"SQS has delivered no task for {failing_s:.0f} s ({describe_error(error)}); check the credentials,"
                " BINWATCH_BROKER_URL and the network. The worker continues by itself once SQS answers"
            )


class TaskChannel(SqsChannel):
    """Receives and deletes tasks. Polls and deletions never raise, whatever SQS answers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._polls: TaskPolls = self.transport_options.get(TASK_POLLS) or TaskPolls()
        self._backoff_s = 0.0
        self._next_poll_at = 0.0
        """Time of the next poll after a failure, by the monotonic clock."""
        self._not_deleted: deque[tuple[str, str]] = deque()
        """Queue URLs and receipt handles of finished tasks that could not be deleted yet."""
        self._cannot_requeue = False

    def new_sqs_client(self, *args: Any, **kwargs: Any) -> Any:
        """Create kombu's client, with `reject_foreign_responses`."""
        client = super().new_sqs_client(*args, **kwargs)  # type: ignore[no-untyped-call]
        reject_foreign_responses(client)
        return client

    def drain_events(self, timeout: float | None = None, callback: Any = None, **kwargs: Any) -> None:
        """Deliver some tasks. Raises Empty if there are none, or TimeoutError if the worker is stopping."""
        if state.should_stop is not None or state.should_terminate is not None:
            raise TimeoutError  # after TERM, Celery runs the loop once more, and must not receive tasks then
        super().drain_events(timeout, callback, **kwargs)  # type: ignore[no-untyped-call]

    def poll(self, queue: str) -> int:
        """Receive and deliver tasks; return the number of messages."""
        messages = self._receive(queue)
        for message in messages:
            self._deliver(message, queue)
        return len(messages)

    def _receive(self, queue: str) -> list[dict[str, Any]]:
        if time.monotonic() < self._next_poll_at:
            return []
        try:
            response = self.sqs().receive_message(
                QueueUrl=self.queue_url(queue),
                MaxNumberOfMessages=self.capacity(),
                WaitTimeSeconds=self.wait_time_seconds,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
            messages: list[dict[str, Any]] = response.get("Messages", [])
        except Exception as error:  # of any kind: the next poll may succeed
            self._backoff_s = min(_MAX_BACKOFF_S, max(0.5, self._backoff_s * 2))
            self._next_poll_at = time.monotonic() + self._backoff_s
            self._polls.failed(error)
            logger.warning("no tasks from SQS (%s); next try in %.1f s", describe_error(error), self._backoff_s)
            return []
        self._backoff_s, self._cannot_requeue = 0.0, False
        self._polls.succeeded()
        for _ in range(len(self._not_deleted)):
            if not self._try_delete(*self._not_deleted.popleft()):
                break
        return messages

    def _deliver(self, message: dict[str, Any], queue: str) -> None:
        try:
            payload = self.decode(message, queue)
            # Override the message's own values, which decide the queue to which it is requeued.
            payload["properties"]["delivery_info"] |= {"exchange": "", "routing_key": queue}
            self.Message(payload, channel=self)
        except Exception as error:  # a foreign message can fail in any way
            self._dead_letter_raw(message, queue, f"it cannot be read ({describe_error(error)})")
        else:
            self.deliver(payload, queue)

    def _dead_letter_raw(self, message: dict[str, Any], queue: str, reason: str) -> None:
        try:
            self.dead_letter(message, queue, reason)
        except Exception as error:
            logger.warning("task message not dead-lettered (%s), redelivered later: %s", describe_error(error), reason)
            return
        logger.warning("task message dead-lettered: %s", reason)
        self._try_delete(self.queue_url(queue), message["ReceiptHandle"])

    def dead_letter(self, message: dict[str, Any], queue: str, reason: str) -> None:
        """Copy an SQS message to the dead-letter queue of `queue`, with the reason. The original stays in the queue."""
        dead_letter_url, attributes = self.existing_queue_url(queue + "-dead"), reason_attribute(reason)
        self.sqs().send_message(QueueUrl=dead_letter_url, MessageBody=message["Body"], MessageAttributes=attributes)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Delete a finished task, on the thread that processed it; retried later if SQS does not answer."""
        try:
            delivery = self.qos.get(delivery_tag).delivery_info
            url, receipt = delivery["sqs_queue"], delivery["sqs_message"]["ReceiptHandle"]
        except KeyError:  # the channel was closed meanwhile, which requeued the task
            return
        virtual.Channel.basic_ack(self, delivery_tag)
        self._try_delete(url, receipt)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Without `requeue`, leave the message to SQS, which redelivers it later and eventually dead-letters it."""
        self.qos.reject(delivery_tag, requeue=requeue)

    def requeue(self, message: Any) -> None:
        """Have a message redelivered at once. A stopping worker does this for all tasks that it was delaying."""
        if self._cannot_requeue:
            return
        try:
            super().requeue(message)
        except Exception as error:
            # Further attempts would only use up the time that the worker has to stop.
            self._cannot_requeue = True
            logger.warning("tasks cannot be requeued on SQS (%s); they are redelivered later", describe_error(error))

    def _try_delete(self, url: str, receipt: str) -> bool:
        try:
            self.sqs().delete_message(QueueUrl=url, ReceiptHandle=receipt)
        except Exception as error:
            if isinstance(error, ClientError) and error.response["Error"].get("Code") in _GONE_ERROR_CODES:
                return True
            logger.warning("a finished task could not be deleted from SQS (%s); retried", describe_error(error))
            self._not_deleted.append((url, receipt))
            return False
        return True


class SqsTransport(SQS.Transport):
    """kombu's transport for SQS, on Celery's loop for brokers without an event loop."""

    Channel = TaskChannel
    implements = SQS.Transport.implements.extend(asynchronous=False)
    # After these, Celery reconnects. kombu's own list lacks refused requests, and responses that are not from SQS.
    connection_errors: tuple[Any, ...] = (*SQS.Transport.connection_errors, ClientError, ResponseParserError)
