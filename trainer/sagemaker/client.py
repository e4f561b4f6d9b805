"""AWS clients for one region, and a guard for requests that may be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from binwatch.environment import PREFIX
from binwatch.sagemaker.requests import aws_client, is_taken
from binwatch.settings import Settings


class Aws:
    """AWS clients of one region, each created when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self.region = settings.region
        self.serving_environment = container_environment(
            settings, "region", "bucket", "models_prefix", "nightly_prefix", "serve_prefixes"
        )
        """Environment variables of a serving container: region, bucket, and the S3 prefixes from which it may read."""
        self._sagemaker_url = settings.sagemaker.endpoint_url

    @cached_property
    def sagemaker(self) -> Any:
        """Client for jobs, pipelines, models and endpoints."""
        return aws_client("sagemaker", self.region, self._sagemaker_url)

    @cached_property
    def scaling(self) -> Any:
        """Client of Application Auto Scaling, which SageMaker's SDK does not cover."""
        return aws_client("application-autoscaling", self.region)


def container_environment(settings: Settings, *names: str) -> dict[str, str]:
    """Return a container's environment variables for the named settings, without empty ones."""
    return {PREFIX + name.upper(): value for name in names if (value := getattr(settings, name))}


@contextmanager
def ignore_existing() -> Iterator[None]:
    """Ignore the error that a resource already exists.

    It is the intended one, because its name is fixed or derived from its content (`models.unique_name`).
    """
    try:
        yield
    except ClientError as error:
        if not is_taken(error):
            raise
