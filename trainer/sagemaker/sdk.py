"""SageMaker's SDK: what it needs before it is imported, and sessions of it.

The SDK is in the extra `sagemaker`: a person who starts jobs needs it, and the trainer's image has none of its 90
packages. So the modules that import it (`training`, `space`, `pipeline`) are imported by the commands `train`, `tune`
and `pipeline` alone, after `prepare`.
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
    """Make the SDK importable, and as quiet as other commands. Raises ModuleNotFoundError if it is not installed."""
    # It makes clients of the default session, the first as soon as it is imported, and sends nothing by them.
    os.environ.setdefault("AWS_DEFAULT_REGION", settings.region)
    # It would simulate the role's policies before each job, for which a person needs permissions in IAM. SageMaker
    # checks the role anyway, and says what is missing.
    os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # else it does so itself, with level INFO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, as it is imported
        import sagemaker.mlops.workflow.pipeline
        import sagemaker.train.tuner  # noqa: F401
    for name in ("sagemaker", "sagemaker.config"):  # which warn of each name that a pipeline leaves to its steps
        logging.getLogger(name).setLevel(logging.ERROR)


def session(bucket: str | None = None, client: Any = None) -> PipelineSession:
    """A session in which `train`, `tune` and `run` send nothing, but give a step its request.

    `client` sends what is sent: the pipeline itself.
    """
    from sagemaker.core.workflow.pipeline_context import PipelineSession

    return PipelineSession(sagemaker_client=client, default_bucket=bucket, sagemaker_config=_CONFIG)


def step_arguments(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What `call` (`train`, `tune` or `run`) gives a step."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Running within a PipelineSession")  # as it is meant here
        return call(*arguments, **options)
