"""The training container, started as by SageMaker: folders, hyperparameters, interruption, failure."""

from __future__ import annotations

import itertools
import json
import re
import signal
from pathlib import Path

import pytest

from binwatch.bundle import Bundle
from tests.trainer.sagemaker.conftest import OPTIONS
from tests.trainer.sagemaker.player import TRAIN, Container
from trainer.sagemaker import fitting, metric_lines
from trainer.sagemaker.container import launch_command, train
from trainer.sagemaker.fitting import export_options
from trainer.sagemaker.layout import Cluster, Layout


def metrics(said: str) -> dict[str, list[float]]:
    """Extract the metrics from a log by the expressions that SageMaker uses."""
    return {
        each["Name"]: [float(value) for value in re.findall(each["Regex"], said)] for each in metric_lines.DEFINITIONS
    }


def test_job_writes_bundle_evaluation_and_metrics(container: Container) -> None:
    container.configure(OPTIONS | {"train.epochs": "2", "_tuning_objective_metric": "validation:accuracy"})
    ended = container.run(TRAIN)
    assert ended.status == 0, ended.said
    assert ended.failure == ""

    card = Bundle(container.root / "model").card
    assert list(card.variants) == ["fp32"]
    assert card.training["config"]["train"]["epochs"] == 2
    outputs = container.root / "output" / "data"
    assert {file.name for file in outputs.iterdir()} == {
        "best.pt", "epochs.csv", "epochs.png", "evaluation-test.json", "evaluation-test.html",
    }  # fmt: skip
    result = metrics(ended.said)
    times = {"train": 2, "validation": 3, "test": 1}  # the best epoch is repeated at the end
    assert {name: len(values) for name, values in result.items()} == {
        name: times[name.split(":")[0]] for name in result
    }
    assert result["validation:accuracy"][-1] == max(result["validation:accuracy"])
    evaluated = json.loads((outputs / "evaluation-test.json").read_text())["metrics"]["test"]
    assert result["test:accuracy"] == [pytest.approx(evaluated["accuracy"]["value"], abs=1e-6)]
    assert result["test:rmse"] == [pytest.approx(evaluated["rmse"]["value"], abs=1e-6)]


def test_interrupted_job_continues_from_its_last_epoch(container: Container) -> None:
    small = {"model.architecture": "resnet50v2", "model.width": "0.125", "model.freeze": ""}
    container.configure(OPTIONS | small | {"train.epochs": "40"})
    process = container.start(TRAIN)
    assert process.stdout
    for line in process.stdout:
        if metrics(line)["validation:accuracy"]:
            break
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, rest
    assert "the last epoch's checkpoint is whole" in rest
    assert not (container.root / "output" / "failure").exists()  # an interruption is not a failure

    done = len((container.root / "checkpoints" / "epochs.csv").read_text().splitlines()) - 1
    process = container.start(TRAIN)
    assert process.stdout
    first = next(line for line in process.stdout if line.startswith("epoch="))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert first.startswith(f"epoch={done + 1} ")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"train.epocs": "3"},
            "train.epocs is not an option (did you mean train.epochs?); see the table of options in docs/training.md",
        ),
        ({"train.epochs": "many"}, "train.epochs: Input should be a valid integer"),
        ({"export.variants": "int4"}, "'int4' is not a valid Precision; choose from fp32, fp16, int8"),
    ],
)
def test_mistake_fails_the_job_before_the_first_epoch(
    given: dict[str, str], expected: str, container: Container, capfd: pytest.CaptureFixture[str]
) -> None:
    container.configure(OPTIONS | given)
    assert train(Layout(container.root)) == 1
    assert expected in (container.root / "output" / "failure").read_text()
    assert "epoch=" not in capfd.readouterr().out


def test_channel_without_a_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "input" / "data" / "data").mkdir(parents=True)
    Container(tmp_path).configure(OPTIONS)
    assert train(Layout(tmp_path)) == 1
    assert (tmp_path / "output" / "failure").read_text() == (
        "channel 'data' has no manifest.csv: give the job a folder that `python -m trainer prepare` wrote"
    )


def test_unexpected_exception_fails_the_job_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Layout) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(fitting, "configuration", broken)
    assert train(Layout(tmp_path)) == 1
    assert (tmp_path / "output" / "failure").read_text() == (
        "ZeroDivisionError: division by zero; the log has the whole traceback"
    )


def test_hyperparameters_are_parsed_and_those_of_sagemaker_ignored(tmp_path: Path) -> None:
    Container(tmp_path).configure(
        {
            "train.epochs": "3", "train.learning_rate": "0.001", "train.compile": "true", "model.head": "capstone",
            "model.weights": '"none"', "_tuning_objective_metric": "x", "sagemaker_region": "eu-west-1",
        }
    )  # fmt: skip
    assert Layout(tmp_path).changes() == {
        "train.epochs": 3, "train.learning_rate": 0.001, "train.compile": True, "model.head": "capstone",
        "model.weights": "none",
    }  # fmt: skip


def test_all_variants_are_exported_by_default(tmp_path: Path) -> None:
    assert export_options(Layout(tmp_path)).variants == ("fp32", "fp16", "int8")
    Container(tmp_path).configure({"export.variants": "int8", "export.max_loss": "0.01", "export.version": "mine"})
    chosen = export_options(Layout(tmp_path))
    assert (chosen.variants, chosen.max_loss, chosen.version) == (("int8",), 0.01, "mine")
    for version in ("1.10", "2026-11-29", "1_0", "007", "v2"):
        Container(tmp_path).configure({"export.version": version})
        assert export_options(Layout(tmp_path)).version == version


def test_each_machine_starts_processes_that_connect_to_the_first(tmp_path: Path) -> None:
    cluster = Cluster(current_host="algo-2", hosts=["algo-2", "algo-1"], network_interface_name="eth1")
    command = launch_command(Layout(tmp_path), cluster, gpus=4)
    assert command[1:3] == ["NCCL_SOCKET_IFNAME=eth1", "GLOO_SOCKET_IFNAME=eth1"]
    flags = dict(itertools.pairwise(command))
    assert flags["--nnodes"] == "2"
    assert flags["--node_rank"] == "1"
    assert flags["--nproc_per_node"] == "4"
    assert flags["--master_addr"] == "algo-1"


def test_two_machines_train_one_model(container: Container, prepared: Path, tmp_path: Path) -> None:
    second = Container(tmp_path / "second")
    (second.root / "input" / "data").mkdir(parents=True)
    (second.root / "input" / "data" / "data").symlink_to(prepared)
    hosts = ["127.0.0.1", "127.0.0.2"]
    for machine, host in zip((container, second), hosts, strict=True):
        cluster = {"current_host": host, "hosts": hosts, "network_interface_name": "lo"}
        machine.configure(OPTIONS | {"train.batch_size": "16"}, cluster)
    processes = [machine.start(TRAIN) for machine in (container, second)]
    distribution = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], distribution
    assert len(metrics(distribution[0])["validation:accuracy"]) == 2  # the epoch itself, and as the best one
    assert metrics(distribution[1])["validation:accuracy"] == []  # only the main machine logs
    card = Bundle(container.root / "model").card
    assert card.training["processes"] == 2
    assert not (second.root / "model").exists()


def test_first_failure_reason_is_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.fail("the disk is full")
    layout.fail("training ended with status 1")
    assert (tmp_path / "output" / "failure").read_text() == "the disk is full"
