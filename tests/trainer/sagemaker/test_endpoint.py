"""The endpoint, created and removed on moto. Botocore's stubs simulate what moto does not implement."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber

from binwatch.objects import Objects
from binwatch.registry import CurrentModel, Registry
from binwatch.settings import Settings
from testing.services.s3 import S3
from tests.trainer.drawn import run_cli
from tests.trainer.grey import write_grey_bundle
from tests.trainer.sagemaker.conftest import ROLE, CliError
from trainer.sagemaker import endpoint
from trainer.sagemaker.client import Aws
from trainer.sagemaker.errors import SagemakerError
from trainer.sagemaker.models import ModelSource, unique_name
from trainer.sagemaker.options import SagemakerConfig, read_config

CHANGES = {
    "job.role": ROLE, "job.image": "trainer:1", "job.output": "s3://binwatch/sagemaker",
    "endpoint.name": "bins", "endpoint.image": "worker:1", "endpoint.instance_type": "ml.c5.xlarge",
}  # fmt: skip
FLAGS = [part for name, value in CHANGES.items() for part in ("--set", f"{name}={value}")]


class Account:
    """Resources in moto that were created by this test, since tests of the same process share moto."""

    def __init__(self, url: str) -> None:
        options = {"region_name": "us-east-1", "endpoint_url": url}
        self.sagemaker: Any = boto3.client("sagemaker", **options)
        self.scaling: Any = boto3.client("application-autoscaling", **options)
        self._before: set[str] = set()
        self._before = {*self.endpoints, *self.configs, *self.models}

    @property
    def endpoints(self) -> list[str]:
        return self._new(each["EndpointName"] for each in self.sagemaker.list_endpoints()["Endpoints"])

    @property
    def configs(self) -> list[str]:
        result = self.sagemaker.list_endpoint_configs()["EndpointConfigs"]
        return self._new(each["EndpointConfigName"] for each in result)

    @property
    def models(self) -> list[str]:
        return self._new(each["ModelName"] for each in self.sagemaker.list_models()["Models"])

    def _new(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self._before]

    @property
    def targets(self) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.scaling.describe_scalable_targets(ServiceNamespace="sagemaker")[
            "ScalableTargets"
        ]
        return result


@pytest.fixture
def account(aws: str) -> Account:
    return Account(aws)


@pytest.fixture
def registry(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    """Return the registry of a bucket with one model, which is in use."""
    monkeypatch.setenv("BINWATCH_BUCKET", s3.bucket)
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    result = Registry(Objects(Settings(s3_endpoint_url=s3.endpoint_url)), s3.bucket, "models/")
    card = result.publish(write_grey_bundle(tmp_path, "grey-1"))
    result.set_current(CurrentModel(version=card.version, promoted=card.created), result.current())
    return result


def test_endpoint_is_created_scaled_and_removed(
    registry: Registry, s3: S3, account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("sagemaker", "deploy", *FLAGS, "--set", "endpoint.capture_percent=20", "--set", "endpoint.max_instances=3")
    assert "bins" in account.endpoints
    result = account.sagemaker.describe_endpoint(EndpointName="bins")
    config = account.sagemaker.describe_endpoint_config(EndpointConfigName=result["EndpointConfigName"])
    (variant,) = config["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.c5.xlarge", 1)
    assert config["DataCaptureConfig"]["InitialSamplingPercentage"] == 20
    assert config["DataCaptureConfig"]["DestinationS3Uri"] == "s3://binwatch/sagemaker/captured"
    model = account.sagemaker.describe_model(ModelName=variant["ModelName"])
    assert model["ExecutionRoleArn"] == ROLE
    assert model["PrimaryContainer"]["Image"] == "worker:1"
    assert model["PrimaryContainer"]["Environment"] == {
        "BINWATCH_REGION": "us-east-1",
        "BINWATCH_BUCKET": s3.bucket,
        "BINWATCH_MODELS_PREFIX": "models/",
        "BINWATCH_NIGHTLY_PREFIX": "nightly/",
    }
    assert model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"] == {
        "S3Uri": f"s3://{s3.bucket}/models/grey-1/", "S3DataType": "S3Prefix", "CompressionType": "None",
    }  # fmt: skip
    (target,) = account.targets
    assert (target["ResourceId"], target["MinCapacity"], target["MaxCapacity"]) == (
        "endpoint/bins/variant/AllTraffic", 1, 3,
    )  # fmt: skip
    (policy,) = account.scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    aim = policy["TargetTrackingScalingPolicyConfiguration"]
    assert aim["TargetValue"] == 600
    assert aim["PredefinedMetricSpecification"]["PredefinedMetricType"] == "SageMakerVariantInvocationsPerInstance"
    assert "autoscaling: 1 to 3 machines, 600 photos a minute each" in capsys.readouterr().err

    # A repeated deployment changes nothing.
    before = (account.endpoints, account.configs, account.models)
    run_cli("sagemaker", "deploy", *FLAGS, "--set", "endpoint.capture_percent=20", "--set", "endpoint.max_instances=3")
    assert (account.endpoints, account.configs, account.models) == before

    account.sagemaker.create_model(
        ModelName="someone-elses", PrimaryContainer={"Image": "x"}, ExecutionRoleArn=ROLE
    )  # fmt: skip
    run_cli("sagemaker", "undeploy", *FLAGS)
    assert (account.endpoints, account.configs, account.models, account.targets) == ([], [], ["someone-elses"], [])
    account.sagemaker.delete_model(ModelName="someone-elses")
    run_cli("sagemaker", "undeploy", *FLAGS)  # removing nothing is not an error


@pytest.mark.usefixtures("registry")
def test_endpoints_of_one_model_are_removed_independently(account: Account) -> None:
    second = [*FLAGS, "--set", "endpoint.name=bins-2"]
    run_cli("sagemaker", "deploy", *FLAGS)
    run_cli("sagemaker", "deploy", *second)
    run_cli("sagemaker", "undeploy", *FLAGS)
    (model,), (config,) = account.models, account.configs
    (variant,) = account.sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    assert (account.endpoints, variant["ModelName"]) == (["bins-2"], model)
    run_cli("sagemaker", "undeploy", *second)
    assert account.models == []


def test_deploy_needs_a_model(s3: S3, aws: str, cli_error: CliError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_BUCKET", s3.bucket)
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    assert cli_error("sagemaker", "deploy", *FLAGS) == (
        f"error: no model is in use in s3://{s3.bucket}/models/: promote one, or name one"
    )
    assert cli_error("sagemaker", "deploy", *FLAGS, "--model", "s3://b/model").startswith(
        "error: s3://b/model: expected a training job's model.tar.gz"
    )
    assert cli_error("sagemaker", "undeploy", *FLAGS[:6]) == (
        "error: endpoint.name: the endpoint needs a name (--set endpoint.name=NAME)"
    )


def test_model_archive_is_served_unchanged() -> None:
    source = ModelSource("binwatch-train-1", "s3://b/models/binwatch-train-1/output/model.tar.gz")
    assert source.container == {"ModelDataUrl": "s3://b/models/binwatch-train-1/output/model.tar.gz"}


def test_unique_name_depends_on_the_request_and_is_short() -> None:
    long = unique_name("resnet50_" + "x" * 100, {"a": 1})
    assert len(long) <= 63
    assert long == unique_name("resnet50_" + "x" * 100, {"a": 1})
    assert unique_name("m", {"a": 1}) != unique_name("m", {"a": 2})
    assert unique_name("résumé.v1", {}).startswith("binwatch-r-sum-v1-")


class Played:
    """An account with scripted responses for requests that moto does not implement."""

    def __init__(self) -> None:
        self.aws = Aws(Settings())
        self.config: SagemakerConfig = read_config(None, CHANGES | {"endpoint.capture_percent": 0})
        self.stub = Stubber(self.aws.sagemaker)
        self.stub.add_response("create_model", {"ModelArn": "arn:aws:sagemaker:x" + "x" * 20})
        self.stub.add_response("create_endpoint_config", {"EndpointConfigArn": "arn:aws:sagemaker:x" + "x" * 20})
        self.scaling = Stubber(self.aws.scaling)
        self.said: list[str] = []

    def answer(self, config: str, status: str, reason: str = "") -> None:
        """Script the next response of describe_endpoint."""
        result = {
            "EndpointName": "bins", "EndpointArn": "arn:aws:sagemaker:x" + "x" * 20, "EndpointConfigName": config,
            "EndpointStatus": status, "CreationTime": 0, "LastModifiedTime": 0,
        }  # fmt: skip
        self.stub.add_response("describe_endpoint", result | ({"FailureReason": reason} if reason else {}))

    def update(self, old_type: str) -> None:
        """Script the update of an existing endpoint on machines of `old_type`."""
        self.answer("old", "InService")
        variant = {"VariantName": endpoint.VARIANT, "ModelName": "m-1", "InstanceType": old_type}
        result = {
            "EndpointConfigName": "old", "EndpointConfigArn": "arn:aws:sagemaker:x" + "x" * 20,
            "ProductionVariants": [variant], "CreationTime": 0,
        }  # fmt: skip
        self.stub.add_response("describe_endpoint_config", result, {"EndpointConfigName": "old"})
        self.stub.add_response(
            "update_endpoint", {"EndpointArn": "arn:aws:sagemaker:x" + "x" * 20},
            {"EndpointName": "bins", "EndpointConfigName": ANY, "RetainAllVariantProperties": True},
        )  # fmt: skip

    def scale(self) -> None:
        """Script the setup of autoscaling."""
        self.scaling.add_response("register_scalable_target", {})
        self.scaling.add_response("put_scaling_policy", {"PolicyARN": "arn"})

    def deploy(self) -> None:
        with self.stub, self.scaling:
            endpoint.deploy(self.aws, self.config, ModelSource("m-2", "s3://b/models/m-2/"), self.said.append, poll_s=0)


def test_rolled_back_update_is_an_error() -> None:
    played = Played()
    played.update("ml.c5.xlarge")
    played.answer("old", "Updating")
    played.answer("old", "InService", "the container did not answer /ping")
    played.scale()
    with pytest.raises(SagemakerError, match="the old model is still served: the container did not answer /ping"):
        played.deploy()
    assert "endpoint bins: Updating" in played.said
    played.stub.assert_no_pending_responses()


def test_autoscaling_is_removed_before_the_instance_type_changes() -> None:
    played = Played()
    played.update("ml.m5.large")
    played.scaling.add_response("deregister_scalable_target", {})
    played.answer("old", "Updating")
    played.answer("old", "InService", "no capacity")
    played.scale()  # regardless of the result of the update
    with pytest.raises(SagemakerError, match="the old model is still served: no capacity"):
        played.deploy()
    played.scaling.assert_no_pending_responses()


def test_failed_new_endpoint_is_reported_to_cost_money() -> None:
    played = Played()
    played.stub.add_client_error("describe_endpoint", "ValidationException", 'Could not find endpoint "bins".')
    played.stub.add_response("create_endpoint", {"EndpointArn": "arn:aws:sagemaker:x" + "x" * 20})
    played.answer("new", "Creating")
    played.answer("new", "Failed", "no capacity")
    with pytest.raises(
        SagemakerError, match=r"Failed: no capacity; what was created costs money; remove it: .* undeploy"
    ):
        played.deploy()


@pytest.mark.usefixtures("registry")
def test_resources_that_could_not_be_removed_are_named(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    run_cli("sagemaker", "deploy", *FLAGS)
    aws, said = Aws(Settings()), list[str]()

    def refused(**_: str) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DeleteEndpoint")

    monkeypatch.setattr(aws.sagemaker, "delete_endpoint", refused)
    with pytest.raises(
        SagemakerError, match="not everything was removed, and an endpoint costs money while it exists: endpoint"
    ):
        endpoint.undeploy(aws, read_config(None, CHANGES), said.append)
    assert "bins" in account.endpoints
    run_cli("sagemaker", "undeploy", *FLAGS)
    assert (account.endpoints, account.configs, account.models) == ([], [], [])
