"""`python -m trainer sagemaker …`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from binwatch.console import progress_console
from binwatch.settings import load_settings
from binwatch.text import many
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
    """Start a training job; its model.tar.gz is a bundle."""
    from trainer.sagemaker import jobs, sdk
    from trainer.sagemaker.client import Aws

    options, ours = _read(config, settings), load_settings()
    data, weights = _places(data, weights)
    sdk.prepare(ours)
    from trainer.sagemaker.training import training_request

    aws, name = Aws(ours), name or jobs.job_name("train", _now())
    request = training_request(options, data, weights, f"{options.job.output.rstrip('/')}/checkpoints/{name}")
    jobs.create(aws, "create_training_job", f"training job {name}", {"TrainingJobName": name, **request})
    _say(f"training job {name}: started on {options.job.instances} × {options.job.instance_type}")
    if not wait:
        return
    done = jobs.follow(
        aws, f"training job {name}", "describe_training_job", "TrainingJobStatus", _say,
        stop="stop-training-job --training-job-name", TrainingJobName=name,
    )  # fmt: skip
    _say(f"model: {done['ModelArtifacts']['S3ModelArtifacts']}")
    if "BillableTimeInSeconds" in done:
        _say(f"billed: {many(done['BillableTimeInSeconds'] * options.job.instances, 'machine second')}")


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

    options, ours = _read(config, settings), load_settings()
    data, weights = _places(data, weights)
    sdk.prepare(ours)
    from trainer.sagemaker.training import tuning_request

    aws, name = Aws(ours), name or f"bw-tune-{_now():%Y%m%d-%H%M%S}"  # 32 characters at most
    jobs.create(
        aws, "create_hyper_parameter_tuning_job", f"tuning job {name}",
        {"HyperParameterTuningJobName": name, **tuning_request(options, data, weights)},
    )  # fmt: skip
    _say(f"tuning job {name}: {many(options.tuning.trials, 'training job')}, {options.tuning.parallel} at a time")
    if not wait:
        return
    done = jobs.follow(
        aws, f"tuning job {name}", "describe_hyper_parameter_tuning_job", "HyperParameterTuningJobStatus", _say,
        stop="stop-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name", HyperParameterTuningJobName=name,
    )  # fmt: skip
    best = done.get("BestTrainingJob")
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

    options, ours = _read(config, settings), load_settings()
    sdk.prepare(ours)
    from trainer.sagemaker import pipeline

    aws = Aws(ours)
    files = {} if show else pipeline.upload_files(name, options, Objects(ours))
    made = pipeline.make_pipeline(aws, name, options, ours, files)
    if show:
        print(json.dumps(json.loads(made.definition()), indent=2))
        return
    pipeline.upsert(aws, made, options)
    _say(f"pipeline {name}: {many(len(made.steps), 'step')}")
    if not start:
        return
    arn = pipeline.start(aws, made)
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
    """Serve a model at a real-time endpoint, with data capture and autoscaling; creates or updates it."""
    from trainer.sagemaker import endpoint
    from trainer.sagemaker.client import Aws
    from trainer.sagemaker.models import source_of

    ours = load_settings()
    endpoint.deploy(Aws(ours), _read(config, settings), source_of(model, ours), _say)


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
    """Run a step of the pipeline: compare a trained model with the one in use. With --promote: promote it."""
    from trainer.cli.models import open_registry
    from trainer.display import Display
    from trainer.sagemaker import compare

    answer = compare.compare(model, data, open_registry(), load_settings().model_dir, Display(), put_in_use=promote)
    _say(answer.why)
    if out:
        compare.write_answer(answer, out)


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

    given: dict[str, Any] = dict(parse_assignment(text) for text in changes or [])
    return read_config(file, given)


def _places(data: str, weights: str | None) -> tuple[str, str | None]:
    from trainer.sagemaker.options import s3_uri

    # With the slash. Without it, the prefix would also match folders whose names only begin with this one's.
    folder = s3_uri("--data", data).rstrip("/") + "/"
    return folder, s3_uri("--weights", weights) if weights else None


def _say(text: str) -> None:
    progress_console().print(text, highlight=False, markup=False, soft_wrap=True)


def _now() -> datetime:
    return datetime.now(UTC)
