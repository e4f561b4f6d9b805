"""Tests of the CloudFormation template: valid, creatable on moto, and consistent with the code it runs."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import boto3
import pytest

from binwatch.settings import Settings
from tests.deploy.template import TEMPLATE, TEXT, ResolvedTemplate
from worker.brokers.base import TASK_VISIBILITY_S
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.events import VISIBILITY_S as EVENT_VISIBILITY_S
from worker.brokers.sqs.queues import MAX_RECEIVES

FOLDER = Path(__file__).parents[2] / "deploy" / "aws"
PARAMETERS = TEMPLATE["Parameters"]
REGION = "eu-central-1"  # queues of other tests are elsewhere
MAX_TEMPLATE_BYTES = 51_200
"""Maximum size of a template that CloudFormation accepts without a bucket."""


class Stack:
    """A stack that moto has created from the template."""

    def __init__(self, url: str) -> None:
        self._url = url
        ec2 = self.client("ec2")
        subnets = [each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]]
        parameters = {
            "VpcId": ec2.describe_vpcs()["Vpcs"][0]["VpcId"], "SubnetIds": ",".join(subnets[:2]),
            "WorkerImage": "worker:1", "MonitorImage": "monitor:1", "EndpointName": "bins", "NightlyAt": "30 1 * * *",
        }  # fmt: skip
        # moto does not support function URLs, and fails on an output that refers to one.
        body = TEXT[: TEXT.rindex("  LinkUrl:")]
        self.client("cloudformation").create_stack(
            StackName="binwatch", TemplateBody=body, Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )  # fmt: skip
        (self.description,) = self.client("cloudformation").describe_stacks(StackName="binwatch")["Stacks"]

    def client(self, service: str) -> Any:
        return boto3.client(service, region_name=REGION, endpoint_url=self._url)

    def container(self, family: str) -> dict[str, Any]:
        """The only container of a task."""
        task = self.client("ecs").describe_task_definition(taskDefinition=family)["taskDefinition"]
        (container,) = task["containerDefinitions"]
        return dict(container)

    def policies(self, role: str) -> list[dict[str, Any]]:
        """The policy statements of a role, given its name in the template."""
        iam = self.client("iam")
        (name,) = [each["RoleName"] for each in iam.list_roles()["Roles"] if f"-{role}-" in each["RoleName"]]
        names = iam.list_role_policies(RoleName=name)["PolicyNames"]
        policies = [iam.get_role_policy(RoleName=name, PolicyName=each)["PolicyDocument"] for each in names]
        documents = [ast.literal_eval(each) for each in policies]  # moto returns a Python literal, not JSON
        return [statement for document in documents for statement in document["Statement"]]


@pytest.fixture(scope="module")
def stack(moto_url: str) -> Stack:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # moto warns about resources that it does not support
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        return Stack(moto_url)


def test_cfn_lint_passes() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), FOLDER / "binwatch.yaml"], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (0, "")
    assert len(TEXT.encode()) < MAX_TEMPLATE_BYTES


def test_stack_is_created(stack: Stack) -> None:
    assert stack.description["StackStatus"] == "CREATE_COMPLETE"
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stack.description["Outputs"]}
    assert outputs["Bucket"] == f"binwatch-123456789012-{REGION}"
    assert outputs["WorkerRepository"].endswith("/binwatch-worker")
    services = stack.client("ecs").list_services(cluster=stack.client("ecs").list_clusters()["clusterArns"][0])
    assert len(services["serviceArns"]) == 3


def test_queues_match_those_of_workers(stack: Stack) -> None:
    sqs = stack.client("sqs")
    settings = Settings(region=REGION, sqs_endpoint_url=sqs.meta.endpoint_url)
    tasks, events = choose_queues(settings)
    assert events is not None
    tasks.prepare(to_consume=True)  # checks the names, and that each has a dead-letter queue
    events.open()
    for name, seconds in ((settings.event_queue, EVENT_VISIBILITY_S), (settings.task_queue, TASK_VISIBILITY_S)):
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        assert attributes["VisibilityTimeout"] == str(seconds)
        assert attributes["MessageRetentionPeriod"] == "1209600"
        policy = json.loads(attributes["RedrivePolicy"])
        assert policy["maxReceiveCount"] == MAX_RECEIVES
        assert policy["deadLetterTargetArn"].endswith(f":{name}-dead")


@pytest.mark.parametrize("family", ["binwatch-worker", "binwatch-beat", "binwatch-monitor"])
def test_containers_get_known_settings(family: str, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    container = stack.container(family)
    environment = {each["name"]: each["value"] for each in container["environment"]}
    variables = set(Settings.variables())
    assert set(environment) <= variables
    tokens = ["BINWATCH_MONITOR_TOKEN", "BINWATCH_MONITOR_APPROVER_TOKEN"] if family == "binwatch-monitor" else []
    assert [each["name"] for each in container["secrets"]] == ["BINWATCH_DATABASE_URL", *tokens]
    assert variables.issuperset(tokens)
    assert container["readonlyRootFilesystem"] is True
    assert container["logConfiguration"]["options"]["awslogs-group"] == "/binwatch/containers"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.bucket == f"binwatch-123456789012-{REGION}"
    if family != "binwatch-monitor":
        assert settings.nightly_at == "30 1 * * *"
        assert settings.nightly_backend == "sagemaker"
        assert settings.sagemaker.role
        assert settings.sagemaker.role.startswith("arn:aws:iam::123456789012:role/binwatch-SagemakerRole-")


@pytest.mark.parametrize("family", ["binwatch-worker", "binwatch-monitor"])
def test_ecs_health_checks_equal_those_of_images(family: str, stack: Stack) -> None:
    match = re.search(r"HEALTHCHECK .*\\\n +CMD (\[.*\])", _dockerfile(family))
    assert match is not None
    assert stack.container(family)["healthCheck"]["command"] == ["CMD", *json.loads(match[1])]


@pytest.mark.parametrize("family", ["binwatch-worker", "binwatch-beat", "binwatch-monitor"])
def test_containers_user_may_write_to_mounts(family: str, stack: Stack) -> None:
    """A mount would belong to root if the image did not declare the same folder as a volume."""
    match = re.search(r"^VOLUME (.+)$", _dockerfile(family.replace("beat", "worker")), re.MULTILINE)
    assert match is not None
    assert {each["containerPath"] for each in stack.container(family)["mountPoints"]} == set(match[1].split())


def _dockerfile(family: str) -> str:
    return (FOLDER.parents[1] / family.removeprefix("binwatch-") / "Dockerfile").read_text(encoding="utf-8")


def test_roles_have_only_named_permissions(stack: Stack) -> None:
    for role in ("WorkerRole", "MonitorRole", "SagemakerRole", "StartRole"):
        for statement in stack.policies(role):
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not [action for action in actions if "*" in action], f"{role}: {actions}"
            if statement.get("Resource") == "*":  # moto drops statements about unsupported resources
                assert set(actions) <= {"ecr:GetAuthorizationToken", "sqs:ListQueues", "cloudwatch:PutMetricData"}
    monitor = {action for each in stack.policies("MonitorRole") for action in _actions(each)}
    assert monitor == {"s3:ListBucket", "s3:GetObject", "s3:GetObjectVersion"}  # it writes only records


IMAGES = {"WorkerImage": "worker:1", "MonitorImage": "monitor:1"}


@pytest.mark.parametrize("service", ["WorkerService", "BeatService", "MonitorService"])
def test_services_are_private_by_default(service: str) -> None:
    template = ResolvedTemplate(**IMAGES)
    assert template.network(service)["AssignPublicIp"] == "DISABLED"
    assert template.ingress(service) == []
    assert ResolvedTemplate(**IMAGES, AssignPublicIp="ENABLED").network(service)["AssignPublicIp"] == "ENABLED"


def test_only_monitor_is_reachable_and_only_from_given_range() -> None:
    template = ResolvedTemplate(**IMAGES, MonitorCidr="10.1.0.0/16")
    (rule,) = template.ingress("MonitorService")
    (port,) = template.container("MonitorTask")["PortMappings"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"], rule["CidrIp"]) == ("tcp", 8000, 8000, "10.1.0.0/16")
    assert port["ContainerPort"] == 8000
    assert template.ingress("WorkerService") == template.ingress("BeatService") == []
    # Without a monitor, there is no security group for it.
    assert "MonitorSecurityGroup" not in ResolvedTemplate(WorkerImage="worker:1", MonitorCidr="10.1.0.0/16").resources


CIDRS = {"": True, "10.0.0.0/8": True, "192.168.3.4/32": True, "0.0.0.0/0": False, "::/0": False, "10.0.0.0": False}


@pytest.mark.parametrize(("cidr", "accepted"), CIDRS.items())
def test_monitor_cannot_be_opened_to_everyone(cidr: str, accepted: bool) -> None:
    assert bool(re.fullmatch(PARAMETERS["MonitorCidr"]["AllowedPattern"], cidr)) is accepted


def test_tokens_are_generated_for_monitor_only() -> None:
    template = ResolvedTemplate(**IMAGES)
    secrets = {each["Name"]: each["ValueFrom"] for each in template.container("MonitorTask")["Secrets"]}
    tokens = {"BINWATCH_MONITOR_TOKEN": "MonitorToken", "BINWATCH_MONITOR_APPROVER_TOKEN": "MonitorApproverToken"}
    for token in tokens.values():
        generated = template.resources[token]["Properties"]["GenerateSecretString"]
        assert generated == {"PasswordLength": 40, "ExcludePunctuation": True}
        assert template.outputs[token]["Value"] == {"Ref": token}
    assert secrets == {
        name: {"Ref": secret} for name, secret in {"BINWATCH_DATABASE_URL": "DatabaseUrl", **tokens}.items()
    }
    assert _readable_secrets(template) == [*secrets.values()]
    for task in ("WorkerTask", "BeatTask"):
        assert [each["Name"] for each in template.container(task)["Secrets"]] == ["BINWATCH_DATABASE_URL"]


def test_given_secrets_and_load_balancer_replace_generated_ones() -> None:
    group = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/bins/1"
    template = ResolvedTemplate(
        **IMAGES, MonitorTokenSecretArn="arn:token", MonitorApproverTokenSecretArn="arn:approvers",
        MonitorDatabaseUrlSecretArn="arn:url", MonitorTargetGroupArn=group, MonitorHosts="bins.example.com",
    )  # fmt: skip
    container = template.container("MonitorTask")
    secrets = {each["Name"]: each["ValueFrom"] for each in container["Secrets"]}
    tokens = {"BINWATCH_MONITOR_TOKEN": "arn:token", "BINWATCH_MONITOR_APPROVER_TOKEN": "arn:approvers"}
    assert secrets == {"BINWATCH_DATABASE_URL": "arn:url", **tokens}
    assert _readable_secrets(template) == [{"Ref": "DatabaseUrl"}, "arn:token", "arn:approvers", "arn:url"]
    assert not {"MonitorToken", "MonitorApproverToken"} & set(template.resources)
    assert {"Name": "BINWATCH_MONITOR_HOSTS", "Value": "bins.example.com"} in container["Environment"]
    (balancer,) = template.resources["MonitorService"]["Properties"]["LoadBalancers"]
    assert balancer == {"ContainerName": container["Name"], "ContainerPort": 8000, "TargetGroupArn": group}
    assert "LoadBalancers" not in ResolvedTemplate(**IMAGES).resources["MonitorService"]["Properties"]


def _readable_secrets(template: ResolvedTemplate) -> list[Any]:
    """The secrets that ECS may read to start containers."""
    (policy,) = template.resources["StartRole"]["Properties"]["Policies"]
    statements = policy["PolicyDocument"]["Statement"]
    (secrets,) = [each["Resource"] for each in statements if each["Action"] == "secretsmanager:GetSecretValue"]
    return list(secrets)


def test_docs_explain_access_to_monitor() -> None:
    text = (FOLDER.parents[1] / "docs" / "aws.md").read_text(encoding="utf-8")
    names = {name for name in PARAMETERS if name.startswith("Monitor")}
    assert {name for name in names if f"`{name}" not in text} == {"MonitorImage"}
    assert "AssignPublicIp=ENABLED" in text  # required in some networks, and not the default
    assert PARAMETERS["AssignPublicIp"]["Default"] == "DISABLED"


def test_inline_function_equals_its_source_file() -> None:
    code = (FOLDER / "count_link.py").read_text(encoding="utf-8")
    start = TEXT.index("        ZipFile: |")
    lines = TEXT[start:].splitlines()[1 : len(code.splitlines()) + 1]
    assert "\n".join(line.removeprefix("          ") for line in lines) + "\n" == code
    assert len(code) <= 4096  # CloudFormation's limit for inline code


def _actions(statement: dict[str, Any]) -> list[str]:
    actions = statement["Action"]
    return list(actions) if isinstance(actions, list) else [actions]
