"""SQS queues: the client, creation, and checks that a queue exists and is safe to use."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, SSLError

from binwatch.aws import make_client
from binwatch.environment import PREFIX
from binwatch.errors import SettingsError
from binwatch.settings import Settings, advice, require_region
from worker.brokers.base import BrokerQueue, DeadLetterQueue, QueueError
from worker.brokers.sqs.dead_letters import SqsDeadLetters

MAX_RECEIVES = 200
"""SQS moves a message to the dead-letter queue after this many deliveries without deletion.

Each stopping worker requeues the messages that it has just received, which adds a delivery. A fleet that is restarted
a few times must stay far below the limit. Poison messages are detected much earlier, by other means.
"""
_MAX_REASON_CHARS = 1024
_MAX_RETENTION_S = str(14 * 24 * 3600)  # the limit of SQS

_TLS_ADVICE = "if that certificate was issued by your own authority, name its file in AWS_CA_BUNDLE or SSL_CERT_FILE"


class NotSqs(BotoCoreError):  # type: ignore[misc]  # boto3 has no types
    """The response is not from SQS but, for example, a page of a proxy."""

    fmt = "the answer to {operation} is not from SQS, but is {kind!r}"


def sqs_client(settings: Settings) -> Any:
    """Create a boto3 client for SQS with the timeouts of `client_config`."""
    client = make_client(
        "sqs",
        endpoint_url=settings.sqs_endpoint_url,
        region_name=settings.region,
        config=Config(**client_config(settings)),
    )
    reject_foreign_responses(client)
    return client


def reject_foreign_responses(client: Any) -> None:
    """Have an SQS client raise NotSqs where boto3 would accept any page with status 200 as an empty response.

    Otherwise, a message that was not sent would count as sent, and be lost.
    """
    client.meta.events.register("after-call.sqs", _check_response)


def _check_response(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    if http_response.status_code >= 300:
        return
    try:
        is_json_object = isinstance(json.loads(http_response.content or b"{}"), dict)
    except ValueError:
        is_json_object = False
    if not is_json_object or (model.name == "SendMessage" and "MessageId" not in parsed):
        raise NotSqs(operation=model.name, kind=http_response.headers.get("content-type", "nothing"))


def client_config(settings: Settings) -> dict[str, Any]:
    """Return timeouts and retries of SQS clients, including Celery's. A response to a receive call may take 20 s."""
    return {
        "connect_timeout": settings.s3_timeout_s,
        "read_timeout": settings.s3_timeout_s + 20,
        "retries": {"mode": "standard", "total_max_attempts": 3},
    }


class SqsQueue(BrokerQueue):
    """A queue of SQS and its dead-letter queue."""

    def __init__(self, settings: Settings, visibility_s: int, **names: str) -> None:
        """`names` maps settings to names: first the queue's, then its dead-letter queue's. Raises SettingsError."""
        for setting, name in names.items():
            if name.endswith(".fifo"):
                raise SettingsError(
                    f"{PREFIX}{setting.upper()}: {name!r} is a FIFO queue. S3 cannot send events to FIFO queues, and"
                    " Celery cannot use them; name a standard queue. Binwatch does not depend on the order of events"
                )
        require_region(settings, on_aws=settings.sqs_endpoint_url is None)
        self._settings = settings
        self._visibility_s = visibility_s
        self._name, self._dead_letter_name = names.values()

    def create(self) -> list[str]:
        """Create the missing queues. An existing one keeps its attributes, but gets a redrive policy if it has none."""
        client = self._client
        try:
            retention = {"MessageRetentionPeriod": _MAX_RETENTION_S}
            dead_url, dead_is_new = _get_or_create(client, self._dead_letter_name, retention)
            redrive = {"deadLetterTargetArn": queue_arn(client, dead_url), "maxReceiveCount": str(MAX_RECEIVES)}
            policy = {"RedrivePolicy": json.dumps(redrive)}
            attributes = retention | policy | {"VisibilityTimeout": str(self._visibility_s)}
            url, is_new = _get_or_create(client, self._name, attributes)
            if not attribute(client, url, "RedrivePolicy"):
                client.set_queue_attributes(QueueUrl=url, Attributes=policy)
        except (ClientError, BotoCoreError) as error:
            raise request_failed(self._name, error) from error
        return [name for name, new in ((self._name, is_new), (self._dead_letter_name, dead_is_new)) if new]

    def check(self) -> None:
        """Raise QueueError unless the queue exists and has a redrive policy, which names a dead-letter queue."""
        if not attribute(self._client, self._url, "RedrivePolicy"):
            raise QueueError(
                f"queue {self._name!r} has no redrive policy: a message that cannot be processed would be deleted, or"
                " redelivered for ever; set one, or run: python -m worker setup"
            )

    def depths(self) -> tuple[int, int]:
        name = "ApproximateNumberOfMessages"
        waiting, dead = (attribute(self._client, url, name) for url in (self._url, self._dead_letter_url))
        return int(waiting), int(dead)

    def dead_letters(self) -> DeadLetterQueue:
        return SqsDeadLetters(self._client, self._dead_letter_name, self._dead_letter_url, self._url)

    @cached_property
    def _client(self) -> Any:
        return sqs_client(self._settings)

    @cached_property
    def _url(self) -> str:
        return queue_url(self._client, self._name)

    @cached_property
    def _dead_letter_url(self) -> str:
        return queue_url(self._client, self._dead_letter_name)


def _get_or_create(client: Any, name: str, attributes: dict[str, str]) -> tuple[str, bool]:
    """Return the URL of the queue, and whether it was created.

    The queue is looked up first, since creating one that exists with other attributes fails.
    """
    try:
        return str(client.get_queue_url(QueueName=name)["QueueUrl"]), False
    except client.exceptions.QueueDoesNotExist:
        return str(client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]), True


def attribute(client: Any, url: str, name: str) -> Any:
    """Return attribute `name` of the queue at `url` as text, or None if it is not set."""
    return client.get_queue_attributes(QueueUrl=url, AttributeNames=[name]).get("Attributes", {}).get(name)


def queue_url(client: Any, name: str) -> str:
    """Return the URL of the queue. Raises QueueError if it cannot be determined."""
    try:
        return str(client.get_queue_url(QueueName=name)["QueueUrl"])
    except client.exceptions.QueueDoesNotExist as error:
        raise QueueError(f"queue {name!r} does not exist; create it with: python -m worker setup") from error
    except (ClientError, BotoCoreError) as error:
        raise request_failed(name, error) from error


def request_failed(name: str, error: Exception) -> QueueError:
    """Return a QueueError for a failed request about queue `name`, with what to check."""
    settings = advice("event_source", "broker_url", "sqs_endpoint_url", "region")
    hint = _TLS_ADVICE if isinstance(error, SSLError) else f"{settings}; check the credentials and the network"
    return QueueError(f"queue {name!r}: {error}; {hint}")


def reason_attribute(reason: str) -> dict[str, Any]:
    """Return a dead letter's reason as a message attribute. SQS refuses control characters and empty attributes."""
    clean = "".join(c if c.isprintable() else "?" for c in reason.encode(errors="replace").decode())
    return {"reason": {"DataType": "String", "StringValue": clean[:_MAX_REASON_CHARS] or "unknown"}}


def queue_arn(client: Any, url: str) -> str:
    """Return the ARN of the queue at `url`."""
    return str(attribute(client, url, "QueueArn"))
