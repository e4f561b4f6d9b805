"""The commands `python -m trainer sagemaker …`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binwatch.console import progress_console
from binwatch.settings import load_settings
from binwatch.text import count_noun
from trainer.config import parse_assignment

if TYPE_CHECKING:
    from trainer.sagemaker.options import SagemakerConfig

app = typer.Typer(no_args_is_help=True, help="Train, tune, and serve on Amazon SageMaker.")

ConfigFile = Annotated[Path | None, typer.Option("--config", help=r"TOML file with \[job], \[endpoint], \[train], …")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.OPTION=VALUE", help="Change one option, e.g. job.instance_type=ml.g5.2xlarge."
    ),
]
Data = Annotated[str, typer.Option("--data", help="s3://BUCKET/PREFIX/ with the output of `prepare`.")]
Weights = Annotated[str | None, typer.Option("--weights", help="s3:// prefix with the one file to start from.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end, and print each change of state.")]


@app.command()
def train(
    data: Data,
    config: ConfigFile = None,
    settings: Changes = None,
    weights: Weights = None,
    wait: Wait = True,
    name: Annotated[str, typer.Option(help="The job's name; default: binwatch-train- and the time.")] = "",
) -> None:
    """Start a training job, whose model.tar.gz is a bundle."""
    from trainer.sagemaker import jobs, sdk
    from trainer.sagemaker.client import Aws

    options, env_settings = _read(config, settings), load_settings()
    data, weights = _check_uris(data, weights)
    sdk.prepare(env_settings)
    from trainer.sagemaker.training import training_request

    aws, name = Aws(env_settings), name or jobs.job_name("train", _now())
    request = training_request(options, data, weights, f"{options.job.output.rstrip('/')}/checkpoints/{name}")
    jobs.create(aws, "create_training_job", f"training job {name}", {"TrainingJobName": name, **request})
    _say(f"training job {name}: started on {options.job.instances} × {options.job.instance_type}")
    if not wait:
        return
    job = jobs.follow(
        aws, f"training job {name}", "describe_training_job", "TrainingJobStatus", _say,
        stop="stop-training-job --training-job-name", TrainingJobName=name,
    )  # fmt: skip
    _say(f"model: {job['ModelArtifacts']['S3ModelArtifacts']}")
    if "BillableTimeInSeconds" in job:
        _say(f"billed: {count_noun(job['BillableTimeInSeconds'] * options.job.instances, 'machine second')}")


@app.command()
def tune(
    data: Data,
    config: ConfigFile = None,
    settings: Changes = None,
    weights: Weights = None,
    wait: Wait = True,
    name: Annotated[str, typer.Option(help="The job's name; default: bw-tune- and the time.")] = "",
) -> None:
    """Start a tuning job with a search space of `tune` (tuning.preset: default, or capstone)."""
    from trainer.sagemaker import jobs, sdk
    from trainer.sagemaker.client import Aws

    options, env_settings = _read(config, settings), load_settings()
    data, weights = _check_uris(data, weights)
    sdk.prepare(env_settings)
    from trainer.sagemaker.training import tuning_request

    aws, name = Aws(env_settings), name or f"bw-tune-{_now():%Y%m%d-%H%M%S}"  # 32 characters at most
    jobs.create(
        aws, "create_hyper_parameter_tuning_job", f"tuning job {name}",
        {"HyperParameterTuningJobName": name, **tuning_request(options, data, weights)},
    )  # fmt: skip
    _say(f"tuning job {name}: {count_noun(options.tuning.trials, 'training job')}, {options.tuning.parallel} at a time")
    if not wait:
        return
    job = jobs.follow(
        aws, f"tuning job {name}", "describe_hyper_parameter_tuning_job", "HyperParameterTuningJobStatus", _say,
        stop="stop-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name", HyperParameterTuningJobName=name,
    )  # fmt: skip
    best = job.get("BestTrainingJob")
    if best:
        value = best.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value")
        _say(f"best: {best['TrainingJobName']}, validation accuracy {value:.1%}" if value else f"best: {best}")
        _say("train with: " + " ".join(f"--set {key}={text}" for key, text in best["TunedHyperParameters"].items()))


@app.command()
def pipeline(
    config: ConfigFile = None,
    settings: Changes = None,
    name: Annotated[str, typer.Option(help="The pipeline's name.")] = "binwatch",
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start the pipeline after creating it.")] = True,
    show: Annotated[bool, typer.Option("--show", help="Print the definition and change nothing.")] = False,
    wait: Wait = True,
) -> None:
    """Create or update the pipeline: prepare, train, compare; if better: register, promote, deploy."""
    from binwatch.objects import Objects
    from trainer.sagemaker import jobs, sdk
    from trainer.sagemaker.client import Aws

    options, env_settings = _read(config, settings), load_settings()
    sdk.prepare(env_settings)
    from trainer.sagemaker import pipeline

    aws = Aws(env_settings)
    files = {} if show else pipeline.upload_files(name, options, Objects(env_settings))
    definition = pipeline.make_pipeline(aws, name, options, env_settings, files)
    if show:
        print(json.dumps(json.loads(definition.definition()), indent=2))
        return
    pipeline.upsert(aws, definition, options)
    _say(f"pipeline {name}: {count_noun(len(definition.steps), 'step')}")
    if not start:
        return
    arn = pipeline.start(aws, definition)
    _say(f"started: {arn}")
    if wait:
        jobs.follow(
            aws, f"pipeline {name}", "describe_pipeline_execution", "PipelineExecutionStatus", _say,
            stop="stop-pipeline-execution --pipeline-execution-arn", PipelineExecutionArn=arn,
        )  # fmt: skip


@app.command()
def deploy(
    config: ConfigFile = None,
    settings: Changes = None,
    model: Annotated[
        str | None, typer.Option(help="Published version, or s3://…/model.tar.gz; default: the model in use.")
    ] = None,
) -> None:
    """Create or update a real-time endpoint that serves a model, with data capture and autoscaling."""
    from trainer.sagemaker import endpoint
    from trainer.sagemaker.client import Aws
    from trainer.sagemaker.models import source_of

    env_settings = load_settings()
    endpoint.deploy(Aws(env_settings), _read(config, settings), source_of(model, env_settings), _say)


@app.command()
def undeploy(config: ConfigFile = None, settings: Changes = None) -> None:
    """Remove the endpoint and everything that belongs to it."""
    from trainer.sagemaker import endpoint
    from trainer.sagemaker.client import Aws

    endpoint.undeploy(Aws(load_settings()), _read(config, settings), _say)


@app.command()
def compare(
    model: Annotated[Path, typer.Option("--model", help="Folder with model.tar.gz, or with a bundle.")],
    data: Annotated[Path, typer.Option("--data", help="Folder with the output of `prepare`.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for comparison.json.")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Promote the model if it is better, else fail.")] = False,
) -> None:
    """Run a step of the pipeline: compare a trained model with the one in use, and with --promote, promote it."""
    from trainer.cli.models import open_registry
    from trainer.display import Display
    from trainer.sagemaker import compare

    result = compare.compare(model, data, open_registry(), load_settings().model_dir, Display(), promote_better=promote)
    _say(result.why)
    if out:
        compare.write_result(result, out)


@app.command()
def container(
    root: Annotated[Path, typer.Option("--root", help="Parent of SageMaker's folders.")] = Path("/opt/ml"),
) -> None:
    """Run as a training container: the image runs this when SageMaker starts it with `train`."""
    from trainer.sagemaker.container import train
    from trainer.sagemaker.layout import Layout

    sys.exit(train(Layout(root)))


def _read(file: Path | None, changes: list[str] | None) -> SagemakerConfig:
    from trainer.sagemaker.options import read_config

    return read_config(file, dict(parse_assignment(text) for text in changes or []))


def _check_uris(data: str, weights: str | None) -> tuple[str, str | None]:
    """Check and return the S3 URIs of --data, with a final slash, and --weights."""
    from trainer.sagemaker.options import check_s3_uri

    # Without the final slash, the prefix would also match folders whose names start with this folder's name.
    folder = check_s3_uri("--data", data).rstrip("/") + "/"
    return folder, check_s3_uri("--weights", weights) if weights else None


def _say(text: str) -> None:
    progress_console().print(text, highlight=False, markup=False, soft_wrap=True)


def _now() -> datetime:
    return datetime.now(UTC)
