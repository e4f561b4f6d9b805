"""Clients for SageMaker and related services, with retries and helpful errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)

from binwatch.aws import make_client
from binwatch.errors import OutageError
from binwatch.settings import advice

_MAX_ATTEMPTS = 10
"""Maximum number of attempts at a request that is throttled or fails transiently. The backoff doubles up to
20 seconds."""
_THROTTLED_CODES = frozenset({"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"})
_QUOTA_CODES = frozenset({"ResourceLimitExceeded", "LimitExceededException", "ServiceQuotaExceededException"})
_LOGIN_CODES = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId"}
)
_MISSING_CODES = frozenset({"ResourceNotFound", "ResourceNotFoundException", "ObjectNotFoundException"})
_FORBIDDEN_CODES = frozenset({"AccessDenied", "AccessDeniedException"})


class AwsError(OutageError):
    """AWS refused a request or could not be reached."""


class QuotaError(AwsError):
    """The request exceeds a quota of the account. It may succeed once other resources are released."""


def aws_client(service: str, region: str, endpoint_url: str | None = None) -> Any:
    """Make a boto3 client of a service, without sending a request."""
    retries = {"mode": "standard", "max_attempts": _MAX_ATTEMPTS}
    config = Config(retries=retries, connect_timeout=10, read_timeout=60)
    return make_client(service, region_name=region, endpoint_url=endpoint_url, config=config)


@contextmanager
def translate_errors(what: str, region: str) -> Iterator[None]:
    """Translate boto3's errors in the block to an AwsError that names `what` and says what to do."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError, TokenRetrievalError) as error:
        raise AwsError(f"{what}: no AWS credentials ({error}); log in, or give the machine a role") from error
    except EndpointConnectionError as error:
        raise AwsError(
            f"{what}: AWS cannot be reached in region {region!r} ({error}); {advice('region')}; check the network"
        ) from error
    except ClientError as error:
        kind = QuotaError if error_code(error) in _QUOTA_CODES else AwsError
        raise kind(f"{what}: {_advice(error, region)}") from error
    except BotoCoreError as error:
        raise AwsError(f"{what}: {error}") from error


def error_code(error: ClientError) -> str:
    """Return AWS' error code."""
    return str(error.response["Error"].get("Code", ""))


def error_message(error: ClientError) -> str:
    """Return AWS' error message."""
    return str(error.response["Error"].get("Message", ""))


def is_missing(error: ClientError) -> bool:
    """Return whether the resource does not exist.

    SageMaker and Application Auto Scaling may say so only in the message.
    """
    message = error_message(error).lower()
    return error_code(error) in _MISSING_CODES or "could not find" in message or "no scalable target" in message


def is_taken(error: ClientError) -> bool:
    """Return whether the name is taken. SageMaker says so by a code or by a message."""
    return error_code(error) == "ResourceInUse" or "already exist" in error_message(error).lower()


def _advice(error: ClientError, region: str) -> str:
    code, message = error_code(error), error_message(error)
    if code in _LOGIN_CODES:
        return f"the AWS credentials are expired or unknown in region {region!r} ({code}); log in again"
    if code in _FORBIDDEN_CODES:
        return f"not allowed: {message}; give your user or role that permission"
    if code in _QUOTA_CODES:
        return f"a quota of the account is used up: {message}; ask for more in Service Quotas, or take other instances"
    if code in _THROTTLED_CODES:
        return f"AWS refused too many requests, {_MAX_ATTEMPTS} times in a row ({message}); try again in some minutes"
    if "role" in message.lower():
        role = f"job.role for the trainer's jobs; for transform jobs {advice('sagemaker_role')}"
        return f"{message} ({code}); check the role ({role}); see its trust policy, and that you may pass it on"
    return f"{message or error} ({code})"
