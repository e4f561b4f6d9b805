"""Clients of AWS for one region, and making what may be there already."""

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
    """Clients of one region. Nothing is asked before the first call."""

    def __init__(self, settings: Settings) -> None:
        self.region = settings.region
        self.serving = _serving(settings)
        """Environment of a serving container: where the links lead that it is sent, and may lead."""
        self._sagemaker_url = settings.sagemaker.endpoint_url

    @cached_property
    def sagemaker(self) -> Any:
        """Jobs, pipelines, models and endpoints."""
        return aws_client("sagemaker", self.region, self._sagemaker_url)

    @cached_property
    def scaling(self) -> Any:
        """Application Auto Scaling, which is not the SageMaker SDK's business."""
        return aws_client("application-autoscaling", self.region)


def _serving(settings: Settings) -> dict[str, str]:
    names = ("region", "bucket", "models_prefix", "nightly_prefix", "serve_prefixes")
    return {PREFIX + name.upper(): value for name in names if (value := getattr(settings, name))}


@contextmanager
def idempotent() -> Iterator[None]:
    """Making something that is there already is fine: names follow from what they stand for (`models.named`)."""
    try:
        yield
    except ClientError as error:
        if not is_taken(error):
            raise
