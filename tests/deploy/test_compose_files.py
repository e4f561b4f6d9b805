"""Static tests of the compose files, Dockerfiles and provisioning, without Docker. tests/compose starts the stack."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from binwatch.environment import PREFIX
from binwatch.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
LOADED = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = LOADED["services"]
SETTINGS: dict[str, str | None] = LOADED["x-settings"]
GPU = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text(encoding="utf-8"))["services"]
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
DOC = (ROOT / "docs" / "compose.md").read_text(encoding="utf-8")
DOCKERFILES = sorted(ROOT.glob("*/Dockerfile"))
GRAFANA = ROOT / "deploy" / "grafana"
DIGEST = r"(@sha256:[0-9a-f]{64})?"
"""Optional digest behind a tag, as `make pin` writes it."""
PANELS = {"timeseries", "stat", "table", "gauge", "bargauge", "barchart", "heatmap", "piechart", "text", "row"}


def test_images_are_pinned() -> None:
    own_image = re.compile(r"binwatch-\w+(-gpu)?:\$\{BINWATCH_VERSION:-\d+\.\d+\.\d+\}")
    for name, service in (SERVICES | GPU).items():
        if "image" in service and not own_image.fullmatch(service["image"]):
            assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*" + DIGEST, service["image"]), name
    bases = {line for path in DOCKERFILES for line in re.findall(r"^FROM (\S+)", path.read_text(), re.MULTILINE)}
    assert len(bases - {"scratch"}) == 1, "the images share a base, and so its layers"
    assert all(re.search(r":\d+\.\d+\.\d+-[\w.-]+" + DIGEST + "$", base) for base in bases - {"scratch"})


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_limited_and_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["restart"] in ("unless-stopped", "no")
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "container_name" not in service, "a service may have several containers"


def test_mounted_folders_have_selinux_labels() -> None:
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    folders = [volume for volume in mounted if volume.startswith((".", "$"))]
    assert len(folders) == 11
    assert not [volume for volume in folders if "z" not in volume.rsplit(":", 1)[1].split(",")]


def test_make_down_includes_all_profiles() -> None:
    """Compose keeps the volumes of profiles that are not named."""
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", ())}
    down = re.search(r"^down:\n\t@COMPOSE_PROFILES=(\S+) ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert down is not None
    assert set(down[1].split(",")) == profiles
    assert all(f"--profile {profile} " in DOC for profile in profiles)


def test_no_service_depends_on_optional_one() -> None:
    match = re.search(r'^can_be_left_out="(.+)"', (ROOT / "deploy/compose/common").read_text(), re.MULTILINE)
    assert match is not None
    needed = {name for service in SERVICES.values() for name in service.get("depends_on", ())}
    assert set(match[1].split()) == {"monitor", "prometheus", "grafana"} <= SERVICES.keys() - needed


def test_volumes_are_named() -> None:
    named = LOADED["volumes"].keys()
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert named == {volume for volume in used if not volume.startswith((".", "$"))}


@pytest.mark.parametrize("name", SERVICES)
def test_settings_exist(name: str) -> None:
    """A misspelt setting would prevent the container from starting."""
    fields = set(Settings.variables())
    settings = {key for key in SERVICES[name].get("environment", {}) if key.startswith(PREFIX)}
    assert settings <= fields


def test_every_setting_reaches_containers_or_is_documented_as_exception() -> None:
    """Settings that may be set in .env are `x-settings`; the docs name all others."""
    fields = set(Settings.variables())
    (exceptions,) = re.findall(r"^Not to be set there: (.+?)\n\n", DOC, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`(BINWATCH_\w+)`", exceptions))
    assert _from_env() | named == fields
    assert not _from_env() & named


def _from_env() -> set[str]:
    """Settings that a container gets from .env, with or without a default in docker-compose.yml."""
    return set(re.findall(rf"^ +({PREFIX}\w+):(?: &\w+)?(?: \$\{{\1:-[^}}]*\}})?$", TEXT, re.MULTILINE))


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "binwatch" in service["image"]])
def test_own_containers_get_settings(name: str) -> None:
    assert name == "folder" or SERVICES[name]["environment"].keys() >= SETTINGS.keys()


def test_each_secret_reaches_only_services_that_need_it() -> None:
    environments = {name: service.get("environment", {}) for name, service in SERVICES.items()}
    holders = {
        "S3_SECRET_KEY": {"s3", "bucket", "samples", "trainer"},
        "S3_WORKER_SECRET_KEY": {"s3", "worker", "catch-up"},
        "S3_MONITOR_SECRET_KEY": {"s3", "monitor"},
        "POSTGRES_PASSWORD": {"postgres", "migrate", "roles"},
        "POSTGRES_WORKER_PASSWORD": {"roles", "worker", "catch-up"},
        "POSTGRES_MONITOR_PASSWORD": {"roles", "monitor"},
        "RABBITMQ_PASSWORD": {"rabbitmq", "s3", "setup", "bucket", "worker", "beat", "catch-up"},
        "GRAFANA_PASSWORD": {"grafana"},
        "BINWATCH_MONITOR_TOKEN": {"monitor"},
        "BINWATCH_MONITOR_APPROVER_TOKEN": {"monitor"},
    }
    assert {secret for secret in re.findall(r"^(\w+)=$", EXAMPLE, re.MULTILINE) if _is_secret(secret)} == holders.keys()
    for secret, services in holders.items():
        used = re.compile(rf"\$\{{{secret}\b")
        receivers = {
            name for name, values in environments.items() if any(used.search(str(value)) for value in values.values())
        }
        assert receivers == services, secret


def _is_secret(name: str) -> bool:
    return name.endswith(("PASSWORD", "SECRET_KEY", "TOKEN"))


def test_example_env_has_every_variable() -> None:
    used = set(re.findall(r"\$\{(\w+)", TEXT)) - {"BINWATCH_VERSION"}
    example = set(re.findall(r"^(\w+)=", EXAMPLE, re.MULTILINE))
    assert {name for name in used if not name.startswith(PREFIX)} <= example <= used | _from_env() | {"WITHOUT"}


def test_example_env_has_no_passwords() -> None:
    assert set(re.findall(r"^\w*(?:PASSWORD|SECRET_KEY|TOKEN)=(.*)$", EXAMPLE, re.MULTILINE)) == {""}


def test_docs_name_every_service_and_port() -> None:
    table = DOC.split("## What runs")[1].split("\n\n")[1]
    assert set(re.findall(r"`([\w-]+)`", table.replace("`data/`", "").replace("`docker compose run`", ""))) == set(
        SERVICES
    )
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            default = re.search(r":-(\d+)\}", port)
            assert default is not None
            assert re.search(rf"`{name}` .*\| {default[1]} \|", table), name


def test_images_keep_only_used_aws_services() -> None:
    kept = re.search(r"^used='(.+)'$", (ROOT / "deploy/compose/install-packages").read_text(), re.MULTILINE)
    assert kept is not None
    calls = re.compile(r"(?:_client|\.client)\(\s*\"([a-z0-9-]+)\"")
    sources = (path.read_text() for name in ("binwatch", "worker", "monitor", "trainer") for path in _python(name))
    called = {service for source in sources for service in calls.findall(source)}
    assert {"s3", "sqs"} <= called <= set(kept[1].split())


def _python(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


@pytest.mark.parametrize("path", sorted((GRAFANA / "dashboards").glob("*.json")), ids=lambda path: path.stem)
def test_dashboards_are_valid(path: Path) -> None:
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    assert re.fullmatch(r"[\w-]{1,40}", dashboard["uid"])
    assert dashboard["title"]
    assert dashboard["schemaVersion"] >= 36
    assert dashboard.get("id") is None, "ids belong to one Grafana"
    for panel in dashboard["panels"]:
        assert panel["type"] in PANELS
        assert panel["gridPos"].keys() == {"x", "y", "w", "h"}
        references = [target["refId"] for target in panel.get("targets", [])]
        assert len(references) == len(set(references))
        assert panel["type"] in {"row", "text"} or references


def test_provisioning_is_valid() -> None:
    (source,) = _provisioned("datasources")["datasources"]
    assert source.keys() <= {"name", "uid", "type", "access", "url", "isDefault", "editable", "jsonData", "version"}
    assert set(re.findall(r"\$\{(\w+)\}", source["url"])) <= SERVICES["grafana"]["environment"].keys()
    (provider,) = _provisioned("dashboards")["providers"]
    assert provider.keys() <= {"name", "type", "folder", "disableDeletion", "allowUiUpdates", "options"}
    assert any(volume.endswith(f":{provider['options']['path']}:ro,z") for volume in SERVICES["grafana"]["volumes"])


def _provisioned(kind: str) -> dict[str, Any]:
    (path,) = (GRAFANA / "provisioning" / kind).glob("*.yml")
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert loaded.pop("apiVersion") == 1
    return loaded
