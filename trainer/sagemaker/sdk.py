"""Prepares the import of SageMaker's SDK, and creates its sessions.

The SDK is in the extra `sagemaker`, for those who start jobs. The trainer's image has none of its 90 packages, so the
modules that import it (`training`, `space`, `pipeline`) are imported only by the commands `train`, `tune` and
`pipeline`, after `prepare`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from binwatch.settings import Settings

if TYPE_CHECKING:
    from sagemaker.core.workflow.pipeline_context import PipelineSession

_SDK_CONFIG = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}
"""Configuration of the SDK. Without it, the SDK would report each call to AWS."""


def prepare(settings: Settings) -> None:
    """Import the SDK without its warnings and log lines. Raises ModuleNotFoundError if it is not installed."""
    # The SDK creates clients of the default session, the first one when it is imported, and they need a region.
    os.environ.setdefault("AWS_DEFAULT_REGION", settings.region)
    # The SDK would simulate the role's policies before each job, which needs IAM permissions. SageMaker checks the role
    # anyway, and its error names the missing permission.
    os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # otherwise the SDK sets the level INFO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK's own warnings on import
        import sagemaker.mlops.workflow.pipeline
        import sagemaker.train.tuner  # noqa: F401
    for name in ("sagemaker", "sagemaker.config"):  # they warn about each name that the SDK leaves to the steps
        logging.getLogger(name).setLevel(logging.ERROR)


def session(bucket: str | None = None, client: Any = None) -> PipelineSession:
    """Create a session in which `train`, `tune` and `run` do not send their request, but return it for a step.

    The pipeline itself is sent with `client`.
    """
    from sagemaker.core.workflow.pipeline_context import PipelineSession

    return PipelineSession(sagemaker_client=client, default_bucket=bucket, sagemaker_config=_SDK_CONFIG)


def step_arguments(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return the arguments of a step, as returned by `call` (`train`, `tune` or `run`)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Running within a PipelineSession")  # this is intended
        return call(*arguments, **options)
