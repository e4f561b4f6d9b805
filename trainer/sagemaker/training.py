"""Requests of training and tuning jobs, made with the SDK's ModelTrainer and HyperparameterTuner.

In a PipelineSession, these do not send a request, but return it for a step. Training jobs, tuning jobs and the pipeline
use the same request. boto3 sends it (`jobs.create`), because ModelTrainer generates a job's name itself. Here the user
may choose the name (--name), by which the checkpoints of an interrupted job are found.
"""

from __future__ import annotations

from typing import Any

from sagemaker.core.parameter import IntegerParameter, ParameterRange
from sagemaker.core.shapes.shapes import (
    CheckpointConfig,
    HyperbandStrategyConfig,
    HyperParameterTuningJobStrategyConfig,
    OutputDataConfig,
)
from sagemaker.mlops.workflow.steps import TrainingStep, TuningStep
from sagemaker.train.configs import Compute, InputData, MetricDefinition, Networking, StoppingCondition, Tag
from sagemaker.train.model_trainer import ModelTrainer
from sagemaker.train.tuner import HyperparameterTuner

from trainer.sagemaker import metric_lines, sdk
from trainer.sagemaker.jobs import SECONDS_PER_HOUR, tags
from trainer.sagemaker.layout import DATA, ROOT, WEIGHTS
from trainer.sagemaker.options import JobConfig, SagemakerConfig
from trainer.sagemaker.space import parameter_ranges


def training_step(
    config: SagemakerConfig, data: Any, weights: str | None = None, checkpoints: Any = None
) -> TrainingStep:
    """Define the step `Train` of a pipeline.

    `data` is the S3 prefix of the output of `prepare`, or a pipeline's reference to it. `weights` is the S3 prefix of a
    file of initial weights. `checkpoints` is the S3 prefix of this job's checkpoints, from which it continues after an
    interruption.
    """
    trainer = _model_trainer(config, config.hyperparameters(), checkpoints)
    return TrainingStep("Train", sdk.step_arguments(trainer.train, _inputs(data, weights)))


def training_request(
    config: SagemakerConfig, data: str, weights: str | None = None, checkpoints: str | None = None
) -> dict[str, Any]:
    """Return the request CreateTrainingJob, without a name."""
    request: dict[str, Any] = training_step(config, data, weights, checkpoints).arguments
    return request


def tuning_request(config: SagemakerConfig, data: str, weights: str | None = None) -> dict[str, Any]:
    """Return the request CreateHyperParameterTuningJob, without a name. The search spaces are those of `tune`."""
    tuning = config.tuning
    ranges, fixed = parameter_ranges(tuning.preset)
    tuner = HyperparameterTuner(
        _model_trainer(config, config.hyperparameters() | fixed),
        objective_metric_name=metric_lines.OBJECTIVE,
        metric_definitions=metric_lines.DEFINITIONS,
        hyperparameter_ranges=ranges,
        max_jobs=tuning.trials,
        max_parallel_jobs=tuning.parallel,
        strategy=tuning.strategy,
        **_trial_stopping(config, ranges),
    )
    request: dict[str, Any] = TuningStep("Tune", sdk.step_arguments(tuner.tune, _inputs(data, weights))).arguments
    return request


def _model_trainer(config: SagemakerConfig, hyperparameters: dict[str, str], checkpoints: Any = None) -> ModelTrainer:
    job = config.job
    trainer = ModelTrainer(
        training_image=job.image,
        role=job.role,
        sagemaker_session=sdk.session(),
        compute=Compute(
            instance_type=job.instance_type,
            instance_count=job.instances,
            volume_size_in_gb=job.volume_gb,
            enable_managed_spot_training=job.spot,
        ),
        networking=Networking(subnets=list(job.subnets), security_group_ids=list(job.security_groups))
        if job.subnets
        else None,
        stopping_condition=_stopping_condition(job),
        output_data_config=OutputDataConfig(s3_output_path=job.output.rstrip("/") + "/models"),
        checkpoint_config=CheckpointConfig(s3_uri=checkpoints, local_path=str(ROOT / "checkpoints"))
        if checkpoints
        else None,
        hyperparameters=hyperparameters,
        tags=[Tag(key=tag["Key"], value=tag["Value"]) for tag in tags(job)],
    )
    return trainer.with_metric_definitions(
        [MetricDefinition(name=each["Name"], regex=each["Regex"]) for each in metric_lines.DEFINITIONS]
    )


def _inputs(data: Any, weights: str | None) -> list[InputData]:
    channels = {DATA: data} | ({WEIGHTS: weights} if weights else {})
    return [InputData(channel_name=name, data_source=uri) for name, uri in channels.items()]


def _stopping_condition(job: JobConfig) -> StoppingCondition:
    max_runtime_s = round(job.max_hours * SECONDS_PER_HOUR)
    max_wait_s = max(round(job.spot_wait_hours * SECONDS_PER_HOUR), max_runtime_s) if job.spot else None
    return StoppingCondition(max_runtime_in_seconds=max_runtime_s, max_wait_time_in_seconds=max_wait_s)


def _trial_stopping(config: SagemakerConfig, ranges: dict[str, ParameterRange]) -> dict[str, Any]:
    """Return the arguments of HyperparameterTuner for stopping bad trials early."""
    if config.tuning.strategy != "Hyperband":
        return {"early_stopping_type": "Auto"}
    epochs = ranges.get("train.epochs")
    max_epochs = epochs.max_value if isinstance(epochs, IntegerParameter) else config.train.epochs
    # Hyperband stops trials itself and refuses other early stopping. It also stops a trial that has reported its metric
    # `max_resource` times. A trial reports it after each epoch and once more, and must then have time to export.
    resources = HyperbandStrategyConfig(max_resource=max_epochs + 2)
    return {
        "early_stopping_type": "Off",
        "strategy_config": HyperParameterTuningJobStrategyConfig(hyperband_strategy_config=resources),
    }
