"""Makes AWS clients."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.exceptions import BotoCoreError

from binwatch.errors import SettingsError


def make_client(service: str, **options: Any) -> Any:
    """Make a boto3 client. Raises SettingsError if the settings or AWS' own variables are invalid."""
    try:
        return boto3.client(service, **options)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(
            f"boto3 cannot send requests to {service} ({error}); check the endpoint, BINWATCH_REGION, and AWS' own"
            " variables and files (AWS_PROFILE, AWS_ENDPOINT_URL, ~/.aws/config)"
        ) from error
