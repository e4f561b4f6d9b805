"""Tests of the running stack: counting, permissions, isolation, images and monitoring."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from testing.compose_stack import BUCKET, OWN_SERVICES, ROOT, SERVERS, Stack, docker, run, wait_until
from tests.compose.conftest import EARLY_PHOTO_KEY
from tests.compose.load import Load

SAMPLE_PHOTOS = 122
MB = 1_000_000
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))


def test_photo_present_before_start_is_counted(stack: Stack) -> None:
    wait_until(lambda: EARLY_PHOTO_KEY in {key for key, _ in stack.counts()}, stack.logs)


def test_sample_photos_are_counted_and_compared(stack: Stack) -> None:
    """Events alone suffice: beat is stopped, so reconcile does not find lost events."""
    docker("stop", stack.container("beat")["Id"])
    output = stack.compose("run", "--rm", "samples").stdout
    assert f"{SAMPLE_PHOTOS} photos and {SAMPLE_PHOTOS} metadata files are in s3://binwatch/" in output
    names = {path.name for path in (ROOT / "samples/bin-images").iterdir()}
    bins = {name.removesuffix(".jpg") for name in names}
    wait_until(lambda: {key.split("/")[-1] for key, _ in stack.counts()} >= names, stack.logs)
    wait_until(lambda: set(_compared(stack)) >= bins, stack.logs)
    assert {_compared(stack)[bin_id] for bin_id in bins} == {1}
    assert set(stack.counts().values()) == {1}
    docker("start", stack.container("beat")["Id"])
    wait_until(stack.healthy, stack.logs)


def _compared(stack: Stack) -> Counter[str]:
    return Counter(bin_id for (bin_id,) in stack.sql("SELECT bin_id FROM comparisons"))


def test_monitor_shows_sample_photos(stack: Stack) -> None:
    page = httpx.get(stack.url("monitor") + "/")
    assert page.status_code == 200
    summary = httpx.get(stack.url("monitor") + "/api/summary").json()
    assert summary["photos"]["done"] >= SAMPLE_PHOTOS


def test_file_copied_into_folder_is_counted(stack: Stack) -> None:
    """Reconcile finds the file, which causes no event and has no ETag in S3."""
    source = ROOT / "samples/bin-images/00184.jpg"
    name = "data/photos/binwatch/bin-images/dropped.jpg"
    (stack.folder / name).write_bytes(source.read_bytes())
    wait_until(lambda: "bin-images/dropped.jpg" in {key for key, _ in stack.counts()}, stack.logs)
    docker("restart", stack.container("beat")["Id"])  # it reconciles again after a few seconds
    with Load(stack, "after-the-dropped") as load:
        load.wait_for_uploads(5)
    load.check()
    assert [number for (key, _), number in stack.counts().items() if key.endswith("/dropped.jpg")] == [1]


@pytest.mark.parametrize("service", OWN_SERVICES)
def test_own_containers_are_confined(stack: Stack, service: str) -> None:
    (container,) = stack.containers(service)
    host = container["HostConfig"]
    assert container["Config"]["User"] == "10001:10001"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["LogConfig"]["Config"]["max-size"]
    tools = run(["docker", "exec", container["Id"], "sh", "-c", "command -v gcc cc c++ make pip"], check=False)
    assert tools.stdout == ""
    write = run(["docker", "exec", container["Id"], "sh", "-c", "echo x > /app/x"], check=False)
    assert "Read-only file system" in write.stderr


@pytest.mark.parametrize("service", OWN_SERVICES)
def test_only_settings_in_env_reach_containers(stack: Stack, service: str) -> None:
    environment = _environment(stack, service)
    assert environment["BINWATCH_SAGEMAKER_ROLE"] == stack.settings["BINWATCH_SAGEMAKER_ROLE"]
    assert environment["BINWATCH_RECONCILE_MINUTES"] == stack.settings["BINWATCH_RECONCILE_MINUTES"]
    assert not environment.get("BINWATCH_SAGEMAKER_IMAGE")


def _environment(stack: Stack, service: str) -> dict[str, str]:
    return dict(each.partition("=")[::2] for each in stack.container(service)["Config"]["Env"])


def test_permanent_services_do_not_get_admin_credentials(stack: Stack) -> None:
    admin_secrets = {stack.settings[name] for name in ("S3_SECRET_KEY", "POSTGRES_PASSWORD")}
    for service in ("worker", "beat", "monitor", "prometheus"):
        values = " ".join(_environment(stack, service).values())
        assert not [secret for secret in admin_secrets if secret in values], service
    assert stack.settings["RABBITMQ_PASSWORD"] not in " ".join(_environment(stack, "monitor").values())
    assert not {"BINWATCH_DATABASE_URL", "AWS_SECRET_ACCESS_KEY"} & _environment(stack, "beat").keys()


def _allowed(s3: Any, method: str, **arguments: Any) -> bool:
    try:
        getattr(s3, method)(**arguments)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        return False
    return True


@pytest.mark.parametrize("service", ["worker", "monitor"])
def test_s3_users_may_only_read_bucket(stack: Stack, service: str) -> None:
    environment = _environment(stack, service)
    s3 = stack.s3(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    photo = {"Bucket": BUCKET, "Key": EARLY_PHOTO_KEY}
    assert _allowed(s3, "list_objects_v2", Bucket=BUCKET)
    assert _allowed(s3, "head_bucket", Bucket=BUCKET)
    assert _allowed(s3, "get_object", **photo)
    assert _allowed(s3, "head_object", **photo)
    for method, arguments in (
        ("put_object", photo | {"Body": b""}),
        ("put_object", {"Bucket": BUCKET, "Key": "models/current.json", "Body": b"{}"}),
        ("delete_object", photo),
        ("delete_objects", {"Bucket": BUCKET, "Delete": {"Objects": [{"Key": EARLY_PHOTO_KEY}]}}),
        ("delete_bucket_policy", {"Bucket": BUCKET}),
        ("create_bucket", {"Bucket": "another"}),
    ):
        assert not _allowed(s3, method, **arguments), method


def test_other_bucket_policy_statements_are_kept(stack: Stack) -> None:
    s3 = stack.s3()
    statement = {
        "Sid": "own",
        "Effect": "Allow",
        "Principal": {"AWS": ["binwatch-monitor"]},
        "Action": ["s3:GetObjectTagging"],
        "Resource": f"arn:aws:s3:::{BUCKET}/*",
    }
    before = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(before | {"Statement": [statement, *before["Statement"]]}))
    stack.compose("run", "--rm", "--no-deps", "bucket")
    after = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])
    assert after["Statement"] == [statement, *before["Statement"]]
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(before))


def test_monitor_shows_photos_and_records_audits_and_expected_quantities(stack: Stack, tmp_path: Path) -> None:
    """It uses its own S3 user and its own database role."""
    ((count_id,),) = stack.sql(f"SELECT id FROM counts WHERE key = '{EARLY_PHOTO_KEY}'")
    assert httpx.get(stack.url("monitor") + f"/photos/{count_id}").headers["content-type"] == "image/jpeg"
    output = stack.compose("exec", "-T", "monitor", "python", "-m", "monitor", "audit", "early", "3").stdout
    assert "3" in output
    assert stack.sql("SELECT bin_id, quantity FROM audits") == [["early", "3"]]
    tmp_path.chmod(0o777)
    (tmp_path / "stock.csv").write_text("bin,quantity\nearly,4\n")
    stack.compose("run", "--rm", "--no-deps", "-v", f"{tmp_path}:/stock", "monitor", "expect", "/stock/stock.csv")
    assert stack.sql("SELECT expected FROM current_comparisons WHERE bin_id = 'early'") == [["4"]]
    users = {name for (name,) in stack.sql("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename IS NOT NULL")}
    assert users >= {"binwatch_worker"}


@pytest.mark.parametrize("service", SERVERS)
def test_capabilities_are_dropped(stack: Stack, service: str) -> None:
    host = stack.container(service)["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] is None or service in ("postgres", "rabbitmq")


@pytest.mark.parametrize("service", SERVERS)
def test_only_init_runs_as_root(stack: Stack, service: str) -> None:
    rows = docker("top", stack.container(service)["Id"], "-eo", "pid,uid,comm").splitlines()[1:]
    processes = [row.split(maxsplit=2) for row in rows]
    assert {name for _, user, name in processes if user == "0"} <= {"docker-init", "tini"}
    assert len(processes) > 1


def test_no_anonymous_volumes(stack: Stack) -> None:
    """Anonymous volumes would remain after `down`, and accumulate."""
    mounts = [mount for container in stack.containers() for mount in container["Mounts"]]
    assert {mount["Name"] for mount in mounts if mount["Type"] == "volume"} == {
        f"{stack.name}_{name}" for name in ("postgres", "rabbitmq", "models", "beat", "prometheus")
    }


@pytest.mark.parametrize("service", SERVERS)
def test_ports_are_bound_to_loopback_address(stack: Stack, service: str) -> None:
    bindings = stack.container(service)["HostConfig"]["PortBindings"] or {}
    assert {binding["HostIp"] for bound in bindings.values() for binding in bound} <= {"127.0.0.1"}


def test_images_contain_no_password(stack: Stack) -> None:
    for image in ("binwatch-worker:test", "binwatch-monitor:test"):
        metadata = docker("image", "inspect", image) + docker("history", "--no-trunc", image)
        assert not [name for name, value in stack.settings.items() if "PASSWORD" in name and value in metadata]
        labels = json.loads(docker("image", "inspect", image))[0]["Config"]["Labels"]
        assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.parametrize(("image", "limit"), [("binwatch-worker:test", 700), ("binwatch-monitor:test", 350)])
def test_images_are_small(stack: Stack, image: str, limit: int) -> None:
    assert json.loads(docker("image", "inspect", image))[0]["Size"] <= limit * MB


def test_prometheus_scrapes_monitor_and_every_worker(stack: Stack) -> None:
    stack.compose("up", "-d", "--no-recreate", "worker", WORKERS="2")
    try:
        wait_until(
            lambda: _target_health(stack) == {"binwatch-monitor": [1], "binwatch-worker": [1, 1]},
            lambda: str(_target_health(stack)),
        )
        (answer,) = stack.query("sum(binwatch_photos_total{outcome='counted'})")
        assert float(answer["value"][1]) >= SAMPLE_PHOTOS
    finally:
        stack.compose("up", "-d", "--no-recreate", "worker")


def _target_health(stack: Stack) -> dict[str, list[int]]:
    answer = httpx.get(stack.url("prometheus") + "/api/v1/targets").json()
    health: dict[str, list[int]] = {}
    for target in answer["data"]["activeTargets"]:
        health.setdefault(target["labels"]["job"], []).append(int(target["health"] == "up"))
    return health


def test_prometheus_has_loaded_rules(stack: Stack) -> None:
    groups = httpx.get(stack.url("prometheus") + "/api/v1/rules").json()["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert sum(len(group["rules"]) for group in groups) > 10


def test_prometheus_reloads_rules_on_hangup(stack: Stack) -> None:
    before = _last_reload(stack)
    stack.compose("exec", "-T", "prometheus", "sh", "-c", "kill -HUP 1")
    wait_until(lambda: _last_reload(stack) > before, stack.logs)


def _last_reload(stack: Stack) -> float:
    metrics = httpx.get(stack.url("prometheus") + "/metrics").text
    (line,) = re.findall(r"^prometheus_config_last_reload_success_timestamp_seconds (\S+)$", metrics, re.MULTILINE)
    return float(line)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_accepts_every_dashboard_query(stack: Stack, path: Any) -> None:
    targets = [target for panel in json.loads(path.read_text())["panels"] for target in panel.get("targets", [])]
    queries = [target["expr"].replace("$__rate_interval", "1h") for target in targets]
    answered = [query for query in queries if stack.query(query)]
    assert answered, f"none of {len(queries)} queries has a result"


def test_worker_image_serves_sagemaker_requests(stack: Stack) -> None:
    isolation = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")
    network = ("-p", "127.0.0.1::8080", "-e", "BINWATCH_SERVE_HOST=0.0.0.0")
    container = docker("run", "-d", *isolation, *network, "binwatch-worker:test", "serve").strip()
    try:
        url = "http://" + docker("port", container, "8080").strip()
        wait_until(lambda: _answers(url + "/ping"), lambda: docker("logs", container))
        photo = (ROOT / "samples/bin-images/00184.jpg").read_bytes()
        answer = httpx.post(url + "/invocations", content=photo, headers={"Content-Type": "image/jpeg"}, timeout=30)
        assert answer.status_code == 200
        (counted,) = stack.sql("SELECT predicted FROM counts WHERE key = 'bin-images/early.jpg'")
        assert answer.json()["predicted"] == int(counted[0])
    finally:
        docker("rm", "-fv", container)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_wrong_password_is_reported(stack: Stack) -> None:
    cases = {
        "BINWATCH_DATABASE_URL": ("migrate", "postgresql://binwatch:wrong@postgres:5432/binwatch", "password auth"),
        "BINWATCH_BROKER_URL": ("setup", "amqp://binwatch:wrong@rabbitmq:5672//", "refuses the user or the password"),
        "AWS_SECRET_ACCESS_KEY": ("samples", "wrong", "check the endpoint, the credentials"),
    }
    for name, (service, value, message) in cases.items():
        result = _run_with(stack, service, name, value)
        assert result.returncode == 1, name
        assert message in result.stdout + result.stderr, result.stdout + result.stderr
        assert "Traceback" not in result.stdout + result.stderr


def _run_with(stack: Stack, service: str, name: str, value: str) -> subprocess.CompletedProcess[str]:
    return stack.compose("run", "--rm", "--no-deps", "-e", f"{name}={value}", service, check=False)
