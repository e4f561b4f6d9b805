"""The stack as it stands: what was there is counted, what comes is counted, who runs it, and what is measured of it."""

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
from tests.compose.conftest import EARLY
from tests.compose.load import Load

SAMPLES = 122
MB = 1_000_000
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))


def test_a_photo_that_was_in_the_folder_first_is_counted(stack: Stack) -> None:
    wait_until(lambda: EARLY in {key for key, _ in stack.counts()}, stack.logs)


def test_the_sample_photos_are_counted_and_compared(stack: Stack) -> None:
    """By events alone: beat, which would find lost ones, is away."""
    docker("stop", stack.container("beat")["Id"])
    said = stack.compose("run", "--rm", "samples").stdout
    assert f"{SAMPLES} photos and {SAMPLES} metadata files are in s3://binwatch/" in said
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


def test_the_page_shows_them(stack: Stack) -> None:
    page = httpx.get(stack.url("monitor") + "/")
    assert page.status_code == 200
    summary = httpx.get(stack.url("monitor") + "/api/summary").json()
    assert summary["photos"]["done"] >= SAMPLES


def test_a_file_dropped_into_the_folder_is_counted(stack: Stack) -> None:
    """No event tells of it, and S3 has no ETag for it: reconcile finds it."""
    source = ROOT / "samples/bin-images/00184.jpg"
    name = "data/photos/binwatch/bin-images/dropped.jpg"
    (stack.folder / name).write_bytes(source.read_bytes())
    wait_until(lambda: "bin-images/dropped.jpg" in {key for key, _ in stack.counts()}, stack.logs)
    docker("restart", stack.container("beat")["Id"])  # which looks again after a few seconds
    with Load(stack, "after-the-dropped") as load:
        load.wait_for(5)
    load.check()
    assert [number for (key, _), number in stack.counts().items() if key.endswith("/dropped.jpg")] == [1]


@pytest.mark.parametrize("service", OWN_SERVICES)
def test_our_own_containers_can_do_little_harm(stack: Stack, service: str) -> None:
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
    wrote = run(["docker", "exec", container["Id"], "sh", "-c", "echo x > /app/x"], check=False)
    assert "Read-only file system" in wrote.stderr


@pytest.mark.parametrize("service", OWN_SERVICES)
def test_settings_of_the_env_arrive_and_no_others(stack: Stack, service: str) -> None:
    given = _environment(stack, service)
    assert given["BINWATCH_SAGEMAKER_ROLE"] == stack.settings["BINWATCH_SAGEMAKER_ROLE"]
    assert given["BINWATCH_RECONCILE_MINUTES"] == stack.settings["BINWATCH_RECONCILE_MINUTES"]
    assert not given.get("BINWATCH_SAGEMAKER_IMAGE")


def _environment(stack: Stack, service: str) -> dict[str, str]:
    return dict(each.partition("=")[::2] for each in stack.container(service)["Config"]["Env"])


def test_what_runs_all_the_time_is_not_given_the_keys_of_those_who_may_do_anything(stack: Stack) -> None:
    anything = {stack.settings[name] for name in ("S3_SECRET_KEY", "POSTGRES_PASSWORD")}
    for service in ("worker", "beat", "monitor", "prometheus"):
        values = " ".join(_environment(stack, service).values())
        assert not [secret for secret in anything if secret in values], service
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
def test_the_users_of_s3_may_read_the_bucket_and_no_more(stack: Stack, service: str) -> None:
    given = _environment(stack, service)
    s3 = stack.s3(given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"])
    photo = {"Bucket": BUCKET, "Key": EARLY}
    assert _allowed(s3, "list_objects_v2", Bucket=BUCKET)
    assert _allowed(s3, "head_bucket", Bucket=BUCKET)
    assert _allowed(s3, "get_object", **photo)
    assert _allowed(s3, "head_object", **photo)
    for method, arguments in (
        ("put_object", photo | {"Body": b""}),
        ("put_object", {"Bucket": BUCKET, "Key": "models/current.json", "Body": b"{}"}),
        ("delete_object", photo),
        ("delete_objects", {"Bucket": BUCKET, "Delete": {"Objects": [{"Key": EARLY}]}}),
        ("delete_bucket_policy", {"Bucket": BUCKET}),
        ("create_bucket", {"Bucket": "another"}),
    ):
        assert not _allowed(s3, method, **arguments), method


def test_what_others_may_do_in_the_bucket_stays(stack: Stack) -> None:
    s3 = stack.s3()
    own = {
        "Sid": "own",
        "Effect": "Allow",
        "Principal": {"AWS": ["binwatch-monitor"]},
        "Action": ["s3:GetObjectTagging"],
        "Resource": f"arn:aws:s3:::{BUCKET}/*",
    }
    before = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(before | {"Statement": [own, *before["Statement"]]}))
    stack.compose("run", "--rm", "--no-deps", "bucket")
    after = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])
    assert after["Statement"] == [own, *before["Statement"]]
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(before))


def test_the_monitor_shows_photos_and_takes_in_audits_and_expected_quantities(stack: Stack, tmp_path: Path) -> None:
    """As its own user of S3, and as its own role of the records."""
    ((count_id,),) = stack.sql(f"SELECT id FROM counts WHERE key = '{EARLY}'")
    assert httpx.get(stack.url("monitor") + f"/photos/{count_id}").headers["content-type"] == "image/jpeg"
    said = stack.compose("exec", "-T", "monitor", "python", "-m", "monitor", "audit", "early", "3").stdout
    assert "3" in said
    assert stack.sql("SELECT bin_id, quantity FROM audits") == [["early", "3"]]
    tmp_path.chmod(0o777)
    (tmp_path / "stock.csv").write_text("bin,quantity\nearly,4\n")
    stack.compose("run", "--rm", "--no-deps", "-v", f"{tmp_path}:/stock", "monitor", "expect", "/stock/stock.csv")
    assert stack.sql("SELECT expected FROM current_comparisons WHERE bin_id = 'early'") == [["4"]]
    users = {name for (name,) in stack.sql("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename IS NOT NULL")}
    assert users >= {"binwatch_worker"}


@pytest.mark.parametrize("service", SERVERS)
def test_all_drop_what_they_have_no_use_for(stack: Stack, service: str) -> None:
    host = stack.container(service)["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] is None or service in ("postgres", "rabbitmq")


@pytest.mark.parametrize("service", SERVERS)
def test_nothing_runs_as_root_but_the_first_process(stack: Stack, service: str) -> None:
    rows = docker("top", stack.container(service)["Id"], "-eo", "pid,uid,comm").splitlines()[1:]
    processes = [row.split(maxsplit=2) for row in rows]
    assert {name for _, user, name in processes if user == "0"} <= {"docker-init", "tini"}
    assert len(processes) > 1


def test_no_container_leaves_a_volume_behind(stack: Stack) -> None:
    """Those without a name stay after `down`, a few more each time."""
    mounts = [mount for container in stack.containers() for mount in container["Mounts"]]
    assert {mount["Name"] for mount in mounts if mount["Type"] == "volume"} == {
        f"{stack.name}_{name}" for name in ("postgres", "rabbitmq", "models", "beat", "prometheus")
    }


@pytest.mark.parametrize("service", SERVERS)
def test_ports_are_on_the_loopback_address(stack: Stack, service: str) -> None:
    bindings = stack.container(service)["HostConfig"]["PortBindings"] or {}
    assert {binding["HostIp"] for bound in bindings.values() for binding in bound} <= {"127.0.0.1"}


def test_no_password_is_in_an_image(stack: Stack) -> None:
    for image in ("binwatch-worker:test", "binwatch-monitor:test"):
        made = docker("image", "inspect", image) + docker("history", "--no-trunc", image)
        assert not [name for name, value in stack.settings.items() if "PASSWORD" in name and value in made]
        labels = json.loads(docker("image", "inspect", image))[0]["Config"]["Labels"]
        assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.parametrize(("image", "limit"), [("binwatch-worker:test", 700), ("binwatch-monitor:test", 350)])
def test_images_are_small(stack: Stack, image: str, limit: int) -> None:
    assert json.loads(docker("image", "inspect", image))[0]["Size"] <= limit * MB


def test_prometheus_scrapes_the_monitor_and_every_worker(stack: Stack) -> None:
    stack.compose("up", "-d", "--no-recreate", "worker", WORKERS="2")
    try:
        wait_until(lambda: _up(stack) == {"binwatch-monitor": [1], "binwatch-worker": [1, 1]}, lambda: str(_up(stack)))
        (answer,) = stack.query("sum(binwatch_photos_total{outcome='counted'})")
        assert float(answer["value"][1]) >= SAMPLES
    finally:
        stack.compose("up", "-d", "--no-recreate", "worker")


def _up(stack: Stack) -> dict[str, list[int]]:
    answer = httpx.get(stack.url("prometheus") + "/api/v1/targets").json()
    found: dict[str, list[int]] = {}
    for target in answer["data"]["activeTargets"]:
        found.setdefault(target["labels"]["job"], []).append(int(target["health"] == "up"))
    return found


def test_prometheus_has_read_the_rules(stack: Stack) -> None:
    groups = httpx.get(stack.url("prometheus") + "/api/v1/rules").json()["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert sum(len(group["rules"]) for group in groups) > 10


def test_prometheus_reads_its_rules_anew_when_told_as_make_up_does(stack: Stack) -> None:
    before = _last_reload(stack)
    stack.compose("exec", "-T", "prometheus", "sh", "-c", "kill -HUP 1")
    wait_until(lambda: _last_reload(stack) > before, stack.logs)


def _last_reload(stack: Stack) -> float:
    metrics = httpx.get(stack.url("prometheus") + "/metrics").text
    (line,) = re.findall(r"^prometheus_config_last_reload_success_timestamp_seconds (\S+)$", metrics, re.MULTILINE)
    return float(line)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_understands_every_query_of_the_dashboards(stack: Stack, path: Any) -> None:
    targets = [target for panel in json.loads(path.read_text())["panels"] for target in panel.get("targets", [])]
    queries = [target["expr"].replace("$__rate_interval", "1h") for target in targets]
    answered = [query for query in queries if stack.query(query)]
    assert answered, f"not one of {len(queries)} queries has an answer here"


def test_the_workers_image_serves_as_sagemaker_asks(stack: Stack) -> None:
    confined = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")
    reached = ("-p", "127.0.0.1::8080", "-e", "BINWATCH_SERVE_HOST=0.0.0.0")
    served = docker("run", "-d", *confined, *reached, "binwatch-worker:test", "serve").strip()
    try:
        url = "http://" + docker("port", served, "8080").strip()
        wait_until(lambda: _answers(url + "/ping"), lambda: docker("logs", served))
        photo = (ROOT / "samples/bin-images/00184.jpg").read_bytes()
        answer = httpx.post(url + "/invocations", content=photo, headers={"Content-Type": "image/jpeg"}, timeout=30)
        assert answer.status_code == 200
        (counted,) = stack.sql("SELECT predicted FROM counts WHERE key = 'bin-images/early.jpg'")
        assert answer.json()["predicted"] == int(counted[0])
    finally:
        docker("rm", "-fv", served)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_a_wrong_password_is_named(stack: Stack) -> None:
    wrong = {
        "BINWATCH_DATABASE_URL": ("migrate", "postgresql://binwatch:wrong@postgres:5432/binwatch", "password auth"),
        "BINWATCH_BROKER_URL": ("setup", "amqp://binwatch:wrong@rabbitmq:5672//", "refuses the user or the password"),
        "AWS_SECRET_ACCESS_KEY": ("samples", "wrong", "check the endpoint, the credentials"),
    }
    for name, (service, value, message) in wrong.items():
        done = _run_with(stack, service, name, value)
        assert done.returncode == 1, name
        assert message in done.stdout + done.stderr, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def _run_with(stack: Stack, service: str, name: str, value: str) -> subprocess.CompletedProcess[str]:
    return stack.compose("run", "--rm", "--no-deps", "-e", f"{name}={value}", service, check=False)
