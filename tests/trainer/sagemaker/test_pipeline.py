"""The pipeline's definition, created on moto and then run with the real commands, from a bucket to an endpoint."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest

from binwatch.objects import Objects
from binwatch.registry import Registry
from binwatch.settings import Settings
from testing.services.aws_shapes import violations
from testing.services.s3 import S3
from tests.trainer.drawn import run_cli
from tests.trainer.sagemaker.conftest import OPTIONS, ROLE, CliError
from tests.trainer.sagemaker.player import Player

SAMPLES = Path(__file__).parents[3] / "samples"
CONFIG = """
[job]
role = "{role}"
image = "trainer:1"
output = "s3://{bucket}/sagemaker"
tags = {{ team = "bins" }}

[endpoint]
name = "bins-of-the-pipeline"
image = "worker:1"
instance_type = "ml.c5.xlarge"  # moto knows no newer ones

[prepare]
source = "s3://{bucket}"
endpoint = "{endpoint}"
list = "{keys}"
size = 224

[data]
split_seed = 9  # one that has every class among the training photos
"""


@pytest.fixture
def file(s3: S3, aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("BINWATCH_BUCKET", s3.bucket)
    monkeypatch.setenv("BINWATCH_MODEL_DIR", "none")  # no initial model to beat
    photos = sorted((SAMPLES / "bin-images").iterdir())
    for photo in photos:
        s3.put(f"bin-images/{photo.name}", photo.read_bytes())
        s3.put(f"metadata/{photo.stem}.json", (SAMPLES / "metadata" / f"{photo.stem}.json").read_bytes())
    keys = tmp_path / "keys.txt"
    keys.write_text("".join(f"{photo.stem}\n" for photo in photos), encoding="utf-8")
    path = tmp_path / "aws.toml"
    tables: dict[str, dict[str, str]] = {}
    for name, value in OPTIONS.items():
        section, _, option = name.partition(".")
        tables.setdefault(section, {})[option] = value
    options = "".join(
        f"\n[{section}]\n" + "".join(f"{option} = {_toml(option, value)}\n" for option, value in table.items())
        for section, table in tables.items()
    )
    path.write_text(
        CONFIG.format(role=ROLE, bucket=s3.bucket, endpoint=s3.endpoint_url, keys=keys) + options, encoding="utf-8"
    )
    return path


def _toml(option: str, value: str) -> str:
    if option == "variants":
        return json.dumps(value.split(","))
    return value if value.replace(".", "", 1).isdigit() else json.dumps(value)


def definition(name: str = "binwatch") -> dict[str, object]:
    client = boto3.client("sagemaker", region_name="us-east-1")
    result: dict[str, object] = json.loads(client.describe_pipeline(PipelineName=name)["PipelineDefinition"])
    return result


def test_pipeline_from_a_bucket_to_an_endpoint(s3: S3, file: Path, tmp_path: Path) -> None:
    run_cli("sagemaker", "pipeline", "--config", file, "--no-wait")
    registry = Registry(Objects(Settings(s3_endpoint_url=s3.endpoint_url)), s3.bucket, "models/")
    assert registry.current() is None

    player = Player(definition(), s3, tmp_path / "play")
    player.play()
    assert player.done == ["Prepare", "Train", "Compare", "Register", "Promote", "Deploy", "IfBetter"]
    current = registry.current()
    assert current is not None
    assert registry.card(current.version).jpeg_quality == 95
    package = player.found["Steps"]["Register"]
    trained = player.found["Steps"]["Train"]["ModelArtifacts"]["S3ModelArtifacts"]
    assert package["InferenceSpecification"]["Containers"] == [{"Image": "worker:1", "ModelDataUrl": trained}]
    sagemaker = boto3.client("sagemaker", region_name="us-east-1")
    assert sagemaker.describe_endpoint(EndpointName="bins-of-the-pipeline")["EndpointStatus"] == "InService"

    # The same model is not better than itself, so the pipeline ends without changes.
    cached = {name: player.found["Steps"][name] for name in ("Prepare", "Train")}
    second = Player(definition(), s3, tmp_path / "second", cached)
    second.play()
    assert second.done == ["Prepare", "Train", "Compare", "IfBetter"]
    assert "is in use already" in second.found["Steps"]["Compare"]["PropertyFiles"]["Comparison"]["why"]
    assert registry.current() == current
    run_cli("sagemaker", "undeploy", "--config", file)


def test_show_sends_no_requests(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # unreachable
    run_cli("sagemaker", "pipeline", "--config", file, "--show")
    result = json.loads(capsys.readouterr().out)
    assert [step["Name"] for step in result["Steps"]] == ["Prepare", "Train", "Compare", "IfBetter"]
    assert result["Steps"][1]["Arguments"]["Tags"] == [
        {"Key": "project", "Value": "binwatch"}, {"Key": "team", "Value": "bins"},
    ]  # fmt: skip


def test_requests_of_all_steps_are_valid(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["job.max_hours=600", "job.spot=true", 'job.subnets=["subnet-1"]', 'job.security_groups=["sg-1"]']
    flags = [part for each in changes for part in ("--set", each)]
    run_cli("sagemaker", "pipeline", "--config", file, "--show", *flags)
    steps = json.loads(capsys.readouterr().out)["Steps"]
    *steps, decide = steps
    named = {"Processing": "ProcessingJobName", "Training": "TrainingJobName"}  # set by the pipeline
    made = {"Processing": "CreateProcessingJob", "Training": "CreateTrainingJob", "RegisterModel": "CreateModelPackage"}
    for step in [*steps, *decide["Arguments"]["IfSteps"]]:
        kind = step["Type"]
        request = step["Arguments"] | ({named[kind]: step["Name"]} if kind in named else {})
        assert violations("sagemaker", made[kind], request) == [], step["Name"]


def test_no_model_is_registered_without_an_endpoint_image(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    changes = ("--set", "endpoint.image=", "--set", "endpoint.name=")
    run_cli("sagemaker", "pipeline", "--config", file, "--show", *changes)
    decide = json.loads(capsys.readouterr().out)["Steps"][-1]
    assert [step["Name"] for step in decide["Arguments"]["IfSteps"]] == ["Promote"]


def test_new_definition_replaces_the_old_one(file: Path) -> None:
    run_cli("sagemaker", "pipeline", "--config", file, "--name", "twice", "--no-start")
    run_cli("sagemaker", "pipeline", "--config", file, "--name", "twice", "--no-start", "--set", "job.instances=3")
    train = definition("twice")["Steps"][1]  # type: ignore[index]
    assert train["Arguments"]["ResourceConfig"]["InstanceCount"] == 3


def test_pipeline_needs_a_prepare_table(cli_error: CliError, aws: str) -> None:
    changes = {"job.role": ROLE, "job.image": "t:1", "job.output": "s3://binwatch/x"}
    flags = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    assert "prepare: the pipeline needs a table [prepare]" in cli_error("sagemaker", "pipeline", *flags)


def test_missing_list_is_an_error(file: Path, cli_error: CliError) -> None:
    message = cli_error("sagemaker", "pipeline", "--config", file, "--set", "prepare.list=/none/keys.txt")
    assert message == "error: prepare.list: /none/keys.txt: cannot be read (No such file or directory)"
