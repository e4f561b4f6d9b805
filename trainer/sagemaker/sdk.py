"""Preparation of SageMaker's SDK before it is imported, and its sessions.

The SDK is in the extra `sagemaker`, for those who start jobs, and the trainer's image has none of its 90 packages.
So the modules that import it (`training`, `space`, `pipeline`) are imported only by the commands `train`, `tune` and
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

_CONFIG = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}
"""The SDK would report each call to AWS."""


def prepare(settings: Settings) -> None:
    """Make the SDK importable, without its own log lines. Raises ModuleNotFoundError if it is not installed."""
    # The SDK creates clients of the default session, the first one on import, which need a region.
    os.environ.setdefault("AWS_DEFAULT_REGION", settings.region)
    # The SDK would simulate the role's policies before each job, which needs permissions in IAM. SageMaker checks the
    # role in any case, and its error names what is missing.
    os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # else the SDK does it, with level INFO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK's own warnings on import
        import sagemaker.mlops.workflow.pipeline
        import sagemaker.train.tuner  # noqa: F401
    for name in ("sagemaker", "sagemaker.config"):  # they warn about each name that the SDK leaves to the steps
        logging.getLogger(name).setLevel(logging.ERROR)


def session(bucket: str | None = None, client: Any = None) -> PipelineSession:
    """A session in which `train`, `tune` and `run` send nothing, but return the request of a step.

    `client` sends the pipeline itself.
    """
    from sagemaker.core.workflow.pipeline_context import PipelineSession

    return PipelineSession(sagemaker_client=client, default_bucket=bucket, sagemaker_config=_CONFIG)


def step_arguments(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The arguments of a step, as returned by `call` (`train`, `tune` or `run`)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Running within a PipelineSession")  # this is intended
        return call(*arguments, **options)
