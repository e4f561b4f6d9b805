"""Training and tuning jobs: the requests to SageMaker, and the messages when it refuses them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.stub import Stubber

from binwatch.sagemaker.requests import AwsError
from binwatch.settings import Settings
from testing.services.aws_shapes import enum_values, violations
from tests.trainer.drawn import run_cli
from tests.trainer.sagemaker.conftest import ROLE, CliError
from trainer.config import DataConfig, parse_assignment
from trainer.errors import ConfigError
from trainer.sagemaker import jobs, sdk
from trainer.sagemaker.client import Aws
from trainer.sagemaker.errors import SagemakerError
from trainer.sagemaker.jobs import wait
from trainer.sagemaker.options import SagemakerConfig, read_config

CONFIG = f"""
[job]
role = "{ROLE}"
image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/binwatch-trainer:1"
output = "s3://binwatch/sagemaker/"

[train]
epochs = 12
learning_rate = 0.002
compile = true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "aws.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def config(file: Path, *changes: str) -> SagemakerConfig:
    return read_config(file, dict(parse_assignment(change) for change in changes))


@pytest.fixture
def training() -> ModuleType:
    """Import the module of the SDK, which needs a region."""
    sdk.prepare(Settings())
    return importlib.import_module("trainer.sagemaker.training")


def sagemaker(url: str) -> Any:
    return boto3.client("sagemaker", region_name="us-east-1", endpoint_url=url)


def test_list_option_reaches_the_container_unchanged(file: Path) -> None:
    """It is passed as text and parsed like a command-line option."""
    shares = "[1.8, 7.6, 14.3, 16.8, 15, 11.7, 32.7]"
    told = config(file, f"data.class_shares={shares}").hyperparameters()["data.class_shares"]
    name, value = parse_assignment(f"data.class_shares={told}")
    result = DataConfig.model_validate({"photos": "photos", "index": "index.csv", name.partition(".")[2]: value})
    assert result.class_shares == (1.8, 7.6, 14.3, 16.8, 15.0, 11.7, 32.7)


def test_training_job_is_started_and_followed(
    file: Path, aws: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    run_cli(
        "sagemaker", "train", "--config", file, "--data", "s3://binwatch/prepared", "--weights", "s3://binwatch/w.pt",
        "--set", "job.spot=true", "--set", "job.instances=2", "--set", "job.max_hours=1.5", "--name", "first-run",
    )  # fmt: skip
    result = sagemaker(aws).describe_training_job(TrainingJobName="first-run")
    assert result["HyperParameters"] == {
        "train.epochs": "12", "train.learning_rate": "0.002", "train.compile": "true",
        "export.variants": "fp32,int8", "export.max_loss": "0.005",
    }  # fmt: skip
    channels = {
        each["ChannelName"]: each["DataSource"]["S3DataSource"]["S3Uri"] for each in result["InputDataConfig"]
    }  # fmt: skip
    assert channels == {"data": "s3://binwatch/prepared/", "weights": "s3://binwatch/w.pt"}
    assert result["CheckpointConfig"] == {
        "S3Uri": "s3://binwatch/sagemaker/checkpoints/first-run", "LocalPath": "/opt/ml/checkpoints",
    }  # fmt: skip
    assert result["OutputDataConfig"]["S3OutputPath"] == "s3://binwatch/sagemaker/models"
    assert result["ResourceConfig"] == {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 100}
    assert result["EnableManagedSpotTraining"] is True
    assert result["StoppingCondition"] == {"MaxRuntimeInSeconds": 5400, "MaxWaitTimeInSeconds": 86_400}
    assert result["RoleArn"] == ROLE
    captured = capsys.readouterr().err
    assert "training job first-run: started on 2 × ml.g5.xlarge" in captured
    assert "training job first-run: Completed" in captured
    assert f"model: {result['ModelArtifacts']['S3ModelArtifacts']}" in captured


def test_sdk_sends_no_requests_and_no_telemetry(
    file: Path, training: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default the SDK simulates the role's policies in IAM and reports each call to AWS."""
    asked: list[object] = []
    monkeypatch.setattr(BaseClient, "_make_api_call", lambda *_: asked.append("a request"))
    reports = "sagemaker.core.telemetry.telemetry_logging._send_telemetry_request"
    monkeypatch.setattr(reports, lambda *_: asked.append("a report"))
    training.training_request(config(file), "s3://b/p/")
    training.tuning_request(config(file), "s3://b/p/")
    assert asked == []


def test_job_without_spot_has_no_waiting_time(file: Path, training: ModuleType) -> None:
    request = training.training_request(config(file), "s3://b/p/")
    assert request["EnableManagedSpotTraining"] is False
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 43_200}
    assert "VpcConfig" not in request


def test_job_runs_in_the_configured_network(file: Path, training: ModuleType) -> None:
    request = training.training_request(
        config(file, 'job.subnets=["subnet-1"]', 'job.security_groups=["sg-1"]'), "s3://b/p/"
    )
    assert request["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}


def test_tuning_job_searches_the_capstone_space(file: Path, aws: str) -> None:
    run_cli(
        "sagemaker", "tune", "--config", file, "--data", "s3://binwatch/prepared/", "--name", "bw-tune-1",
        "--set", "tuning.preset=capstone", "--set", "tuning.trials=8", "--set", "tuning.parallel=4", "--no-wait",
    )  # fmt: skip
    result = sagemaker(aws).describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="bw-tune-1")
    asked = result["HyperParameterTuningJobConfig"]
    assert asked["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 8, "MaxParallelTrainingJobs": 4}
    assert asked["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": "validation:accuracy"}
    assert asked["ParameterRanges"] == {
        "ContinuousParameterRanges": [
            {"Name": "train.learning_rate", "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
        ],
        "CategoricalParameterRanges": [{"Name": "train.batch_size", "Values": ["32", "64"]}],
        "IntegerParameterRanges": [
            {"Name": "train.epochs", "MinValue": "10", "MaxValue": "20", "ScalingType": "Linear"}
        ],
    }
    # Searched options are not fixed as well, although the file sets them.
    assert result["TrainingJobDefinition"]["StaticHyperParameters"] == {
        "train.compile": "true", "train.optimiser": "adam", "train.loss": "cross_entropy", "model.head": "capstone",
        "export.variants": "fp32,int8", "export.max_loss": "0.005",
    }  # fmt: skip


def test_hyperband_gets_the_length_of_trials(file: Path, training: ModuleType) -> None:
    def asked(*changes: str) -> tuple[str, int | None]:
        request = training.tuning_request(config(file, *changes), "s3://b/p/")
        assert (
            violations("sagemaker", "CreateHyperParameterTuningJob", {"HyperParameterTuningJobName": "t"} | request)
            == []
        )
        result = request["HyperParameterTuningJobConfig"]
        strategy = result.get("StrategyConfig", {"HyperbandStrategyConfig": {}})["HyperbandStrategyConfig"]
        return result["TrainingJobEarlyStoppingType"], strategy.get("MaxResource")

    assert asked("tuning.strategy=Bayesian") == ("Auto", None)
    assert asked("tuning.strategy=Hyperband") == ("Off", 12 + 2)  # from the file
    assert asked("tuning.strategy=Hyperband", "tuning.preset=capstone") == ("Off", 20 + 2)  # from the search space


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("job.role=me", "job.role: String should match pattern"),
        ("job.instance_typ=ml.g5.xlarge", "job.instance_typ is not an option (did you mean job.instance_type?)"),
        ("job.output=/tmp", "job.output: String should match pattern"),
        ('job.subnets=["subnet-1"]', "job: Value error, subnets and security_groups go together"),
        ("endpoint.role=me", "endpoint.role: String should match pattern"),
        ("endpoint.capture=/tmp", "endpoint.capture: String should match pattern"),
        ("train.epochs=0", "train.epochs: Input should be greater than or equal to 1"),
    ],
)
def test_error_names_the_wrong_option(change: str, expected: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"docs/aws\.md") as caught:
        config(file, change)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("command", ["train", "tune"])
def test_local_data_folder_is_an_error(command: str, file: Path, cli_error: CliError) -> None:
    message = cli_error("sagemaker", command, "--config", file, "--data", "prepared/")
    assert message.startswith("error: --data: 'prepared/': expected s3://BUCKET/PREFIX")
    message = cli_error("sagemaker", command, "--config", file, "--data", "s3://b-1/p", "--weights", "w.pt")
    assert message.startswith("error: --weights: 'w.pt': expected s3://BUCKET/PREFIX")


def test_error_names_the_missing_option(tmp_path: Path) -> None:
    file = tmp_path / "aws.toml"
    file.write_text("[train]\nepochs = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^job\.role: Field required; set it .* by --set job\.role=VALUE"):
        read_config(file, {})


def test_unknown_preset_is_an_error(file: Path, training: ModuleType) -> None:
    with pytest.raises(ConfigError, match=r"tuning\.preset: 'best'; choose from default, capstone"):
        training.tuning_request(config(file, "tuning.preset=best"), "s3://b/p/")


@pytest.mark.parametrize(
    ("code", "says", "expected"),
    [
        ("ResourceLimitExceeded", "limit 'ml.g5.xlarge' is 0 Instances", "a quota of the account is used up: limit"),
        (
            "AccessDeniedException",
            "User x is not authorized",
            "not allowed: User x is not authorized; give your user or role",
        ),
        ("ExpiredTokenException", "expired", "the AWS credentials are expired or unknown in region 'us-east-1'"),
        ("ThrottlingException", "Rate exceeded", "AWS refused too many requests, 10 times in a row"),
        (
            "ValidationException",
            "Could not assume role arn:x",
            "Could not assume role arn:x (ValidationException); check",
        ),
        ("ValidationException", "1 validation error", "1 validation error (ValidationException)"),
    ],
)
def test_refused_request_is_explained(code: str, says: str, expected: str, file: Path, training: ModuleType) -> None:
    aws = Aws(Settings())
    with Stubber(aws.sagemaker) as stub:
        stub.add_client_error("create_training_job", code, says)
        request = {"TrainingJobName": "t", **training.training_request(config(file), "s3://b/p/")}
        with pytest.raises(AwsError) as caught:
            jobs.create(aws, "create_training_job", "training job t", request)
    assert str(caught.value).startswith(f"training job t: {expected}")


def test_missing_credentials_are_explained(
    file: Path, cli_error: CliError, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it caches the credentials of other tests
    message = cli_error("sagemaker", "train", "--config", file, "--data", "s3://b-1/p/", "--name", "t")
    assert message.startswith("error: training job t: no AWS credentials")
    assert "log in, or give the machine a role" in message


def test_unreachable_region_is_named(
    file: Path, cli_error: CliError, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("BINWATCH_REGION", "eu-west-9")
    monkeypatch.setattr("binwatch.sagemaker.requests._MAX_ATTEMPTS", 1)
    message = cli_error("sagemaker", "train", "--config", file, "--data", "s3://b-1/p/", "--name", "t")
    assert "AWS cannot be reached in region 'eu-west-9'" in message
    assert "check BINWATCH_REGION" in message


def test_failed_job_gives_the_reason() -> None:
    states = iter(
        [
            {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Downloading"},
            {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Training"},
            {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Training"},
            {"TrainingJobStatus": "Failed", "SecondaryStatus": "Failed", "FailureReason": "AlgorithmError: disk"},
        ]
    )
    message: list[str] = []
    with pytest.raises(SagemakerError, match="Failed: AlgorithmError: disk"):
        wait(lambda: next(states), "TrainingJobStatus", message.append, poll_s=0)
    assert message == ["InProgress: Downloading", "InProgress: Training", "Failed"]


@pytest.mark.parametrize(
    "shape",
    ["TrainingJobStatus", "HyperParameterTuningJobStatus", "PipelineExecutionStatus", "EndpointStatus"],
)
def test_waiting_ends_in_every_final_state(shape: str) -> None:
    """Otherwise an unknown final state would be waited on for ever."""
    states = set(enum_values("sagemaker", shape))
    ends = {
        "Failed",
        "Stopped",
        "Deleting",
        "DeleteFailed",
        "CompletedWithFailures",
        "OutOfService",
        "UpdateRollbackFailed",
    }
    assert states <= jobs.SUCCESS_STATES | jobs.PENDING_STATES | ends
    for state in states & ends:
        with pytest.raises(SagemakerError, match=f"^{state}: no reason given"):
            wait(lambda state=state: {shape: state}, shape, lambda _: None)  # type: ignore[misc]


def test_interrupted_wait_explains_how_to_stop_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "wait", interrupted)
    with pytest.raises(
        SagemakerError,
        match="training job t continues, and costs money; to stop it: aws sagemaker stop-training-job --name t",
    ):
        jobs.follow(
            Aws(Settings()), "training job t", "describe_training_job", "TrainingJobStatus", print,
            stop="stop-training-job --name", TrainingJobName="t",
        )  # fmt: skip
