"""Tests of the manifests in deploy/kubernetes: valid by the API's schemas, and consistent with the code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from binwatch.settings import Settings
from tests.deploy.commands import check_command

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = "1.37"
"""Version of the API schemas."""
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
SECRETS = FOLDER / "secrets.example.yaml"
FIELDS = set(Settings.variables())
SUBCOMMANDS = {"binwatch-worker": "worker", "binwatch-monitor": "monitor"}
"""Image → subcommand that it runs, which is also the folder of its Dockerfile."""


def _load(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


OBJECTS = [each for name in KUSTOMIZATION["resources"] for each in _load(FOLDER / name)]
PODS: dict[str, dict[str, Any]] = {
    each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in OBJECTS if "template" in each.get("spec", {})
}
CONTAINERS = [
    (name, container)
    for name, pod in PODS.items()
    for container in [*pod.get("initContainers", []), *pod["containers"]]
]
SERVICES = {each["metadata"]["name"]: each["spec"] for each in OBJECTS if each["kind"] == "Service"}
DOC = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")


def _dockerfile(container: dict[str, Any]) -> str:
    return (ROOT / SUBCOMMANDS[container["image"]] / "Dockerfile").read_text(encoding="utf-8")


def _name(each: dict[str, Any]) -> str:
    return f"{each['kind']}-{each['metadata']['name']}"


@pytest.mark.parametrize("each", [*OBJECTS, *_load(SECRETS)], ids=_name)
@pytest.mark.parametrize("version", ["1.29", VERSION])
def test_objects_match_api_schemas(each: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(each, version, strict=True)  # raises


def test_validation_finds_misspelt_field() -> None:
    invalid = {**OBJECTS[0], "sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="sepc"):
        kubernetes_validate.validate(invalid, VERSION, strict=True)


def test_kustomization_includes_all_files() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", SECRETS.name}
    assert set(KUSTOMIZATION["resources"]) == files
    images = {image["name"] for image in KUSTOMIZATION["images"]}
    assert images == {container["image"] for _, container in CONTAINERS} == set(SUBCOMMANDS)


@pytest.mark.parametrize(("name", "container"), CONTAINERS, ids=[each["name"] for _, each in CONTAINERS])
def test_commands_and_users_match_images(name: str, container: dict[str, Any]) -> None:
    text = _dockerfile(container)
    check_command([SUBCOMMANDS[container["image"]], *container["args"]])
    (user,) = re.findall(r"^(?:USER|ARG RUN_AS=)\s*(\d+:\d+)$", text, re.MULTILINE)
    security = PODS[name]["securityContext"]
    assert user == f"{security['runAsUser']}:{security['runAsGroup']}"
    assert security["fsGroup"] == security["runAsGroup"], "or it could not write to its volumes"


@pytest.mark.parametrize(("name", "container"), CONTAINERS, ids=[each["name"] for _, each in CONTAINERS])
def test_containers_are_limited_and_confined(name: str, container: dict[str, Any]) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert PODS[name]["securityContext"]["runAsNonRoot"]
    assert container["resources"]["limits"]["memory"]
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_written_folders_are_volumes() -> None:
    """The root file system is read-only; settings in the images define where the worker and beat write."""
    mounted = {name: pod["containers"][0]["volumeMounts"][0]["mountPath"] for name, pod in PODS.items()}
    written = dict(re.findall(r"(BINWATCH_\w+)=(/\S+)", _dockerfile({"image": "binwatch-worker"})))
    assert mounted["worker"] == written["BINWATCH_MODEL_CACHE"]
    assert Path(written["BINWATCH_BEAT_FILE"]).parent == Path(mounted["beat"])


def test_ports_and_probes_match_images() -> None:
    for name in ("worker", "monitor"):
        (container,) = PODS[name]["containers"]
        (port,) = container["ports"]
        (exposed,) = re.findall(r"^EXPOSE (\d+)$", _dockerfile(container), re.MULTILINE)
        assert port["containerPort"] == int(exposed)
        assert container["startupProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
        assert container["livenessProbe"]["httpGet"]["path"] == "/metrics", (
            "an outage of a service must not restart the container"
        )
        (service_port,) = SERVICES[name]["ports"]
        assert (service_port["port"], service_port["targetPort"]) == (int(exposed), port["name"])


def test_services_select_pods_and_are_scraped() -> None:
    prometheus_config = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    labels = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in OBJECTS
        if each["kind"] == "Deployment"
    }
    for name, service in SERVICES.items():
        assert service["selector"].items() <= labels[name].items()
        assert re.search(rf'"{name}(:{service["ports"][0]["port"]})?"', prometheus_config)
    assert SERVICES["worker"]["clusterIP"] == "None", "its DNS name resolves to every worker"


def test_settings_exist() -> None:
    data = [each.get("data", each.get("stringData")) for each in [*OBJECTS, *_load(SECRETS)]]
    names = {name for values in data if values for name in values}
    assert {name for name in names if not name.startswith("AWS_")} <= FIELDS


def test_service_links_are_disabled() -> None:
    """A Service named binwatch-monitor in the namespace, maybe someone else's, would set BINWATCH_MONITOR_PORT to tcp://…."""
    assert all(pod["enableServiceLinks"] is False for pod in PODS.values())


def test_each_pod_gets_only_its_secrets() -> None:
    secrets = {each["metadata"]["name"]: each["stringData"] for each in _load(SECRETS)}
    used = {
        source["secretRef"]["name"]: PODS[name]["containers"][0]["name"]
        for name, container in CONTAINERS
        for source in container["envFrom"]
        if "secretRef" in source
    }
    assert used == {name: name.removeprefix("binwatch-") for name in secrets}
    assert secrets["binwatch-beat"].keys() == {"BINWATCH_BROKER_URL"}
    assert "BINWATCH_BROKER_URL" not in secrets["binwatch-monitor"]
    users = {name: re.findall(r"postgresql://(\w+):", str(values)) for name, values in secrets.items()}
    assert users["binwatch-worker"] == ["binwatch_worker"]
    assert users["binwatch-monitor"] == ["binwatch_monitor"]


def test_grace_periods_match_systemd() -> None:
    for name in ("worker", "beat", "monitor"):
        unit = (ROOT / "deploy" / "systemd" / f"binwatch-{name}.service").read_text(encoding="utf-8")
        (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
        assert PODS[name]["terminationGracePeriodSeconds"] == int(stop_s)


def test_docs_name_existing_objects() -> None:
    named = set(re.findall(r"(?:deployment|job)[/ ]([\w-]+)", " ".join(re.findall(r"kubectl .+", DOC))))
    assert named <= PODS.keys()
    selected = {name for names in re.findall(r"component in \(([\w,]+)\)", DOC) for name in names.split(",")}
    components = {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in OBJECTS}
    assert selected == components == {"settings", "setup", "worker", "beat", "monitor"}


def test_kustomize_builds_same_objects() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl")
    built = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True).stdout
    objects = list(yaml.safe_load_all(built))
    assert sorted(map(_name, objects)) == sorted(map(_name, OBJECTS))
    tags = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in KUSTOMIZATION["images"]}
    assert set(re.findall(r"image: (\S+)", built)) == set(tags.values())
    for each in objects:
        kubernetes_validate.validate(each, VERSION, strict=True)
        assert each["metadata"].get("namespace", "binwatch") == "binwatch"
