"""Training in several processes, started by torchrun, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer import torchrun_script
from tests.trainer.drawn import QUICK, SMALL, Data, run_cli
from trainer.config import DataConfig, TrainConfig, read_config
from trainer.data.dataset import load_dataset
from trainer.display import silent_display
from trainer.distributed import devices
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext, from_environment
from trainer.errors import ConfigError, DataError
from trainer.train import checkpoint
from trainer.train import fit as fitting
from trainer.train.fit import fit
from trainer.train.run_files import LAST_CHECKPOINT

SCRIPT = Path(torchrun_script.__file__)


def torchrun(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={torchrun_script.PROCESSES}",
        str(SCRIPT),
    ]
    command = [sys.executable, *launch, *(str(argument) for argument in arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def runs(data: Data, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run `torchrun_script.fits` in two processes and return the folder of its runs."""
    folder = tmp_path_factory.mktemp("distributed")
    done = torchrun("fits", data.photos, data.index, fitted, folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("resumed after epoch 1\n") == 1  # only the main process prints
    return folder


def state(folder: Path) -> dict[str, torch.Tensor]:
    saved = checkpoint.load(folder / LAST_CHECKPOINT)
    return {f"average {name}": value for name, value in saved.weights.items()} | saved.training["model"]


def test_two_processes_train_like_one(
    data: Data, fitted: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 32 photos with a teacher: one micro-batch in one process, or two in each of two processes."""
    monkeypatch.setattr(fitting, "build", fitting.build)  # use_tiny replaces it
    torchrun_script.use_tiny(norm=False)
    config = torchrun_script.config_of(
        str(data.photos), str(data.index), torchrun_script.SINGLE_32 | {"distil.teachers": [fitted]}
    )
    fit(config, tmp_path / "alone", silent_display())
    single_weights, sharded_weights = state(tmp_path / "alone"), state(runs / "spread")
    assert single_weights.keys() == sharded_weights.keys()
    for name, value in single_weights.items():
        torch.testing.assert_close(sharded_weights[name], value, rtol=1e-4, atol=1e-6)
    start = fitting.build(config.model).state_dict()["backbone.first.0.weight"]
    assert not torch.allclose(single_weights["backbone.first.0.weight"], start, atol=1e-3)

    single, double = (checkpoint.load(folder / LAST_CHECKPOINT) for folder in (tmp_path / "alone", runs / "spread"))
    for single_row, double_row in zip(single.history, double.history, strict=True):  # each validation photo counts once
        figures = [name for name in single_row if name == "train_loss" or name.startswith("val_")]
        assert {name: double_row[name] for name in figures} == pytest.approx(
            {name: single_row[name] for name in figures}
        )
    assert (single.facts["processes"], double.facts["processes"]) == (1, 2)


def test_a_resumed_run_of_two_processes_ends_with_the_same_weights(runs: Path) -> None:
    uninterrupted, resumed = state(runs / "one"), state(runs / "two")
    assert [name for name in uninterrupted if not torch.equal(uninterrupted[name], resumed[name])] == []
    assert not torch.equal(uninterrupted["backbone.first.1.running_mean"], torch.zeros(4))
    assert "changes" not in checkpoint.load(runs / "two" / LAST_CHECKPOINT).facts
    for folder in (runs / "one", runs / "two"):
        written = ["best.pt", "epochs.csv", "epochs.png", "last.pt"]
        assert sorted(file.name for file in folder.iterdir()) == written


def test_features_are_computed_once_for_all_processes(runs: Path) -> None:
    """Two views of the training photos, one of the validation photos, and a teacher's outputs for the former."""
    shapes = [np.load(file, mmap_mode="r").shape for file in (runs / "frozen" / "features").glob("*.npy")]
    assert sorted(len(shape) for shape in shapes) == [3, 4, 4, 4]
    history = checkpoint.load(runs / "frozen" / LAST_CHECKPOINT).history
    assert 0 <= history[0]["val_accuracy"] <= 1


def test_the_first_error_ends_all_processes(data: Data, tmp_path: Path) -> None:
    """Run the command with two processes, one of which cannot read its photos."""
    broken = torchrun("command", "fit", *data.flags, "--out", tmp_path, *SMALL, "--epochs", 1, BREAK="1")
    assert broken.returncode != 0
    errors = [line for line in broken.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, broken.stderr
    assert "process 1 of 2 on" in errors[0]
    assert "can no longer be read: the file is empty" in errors[0]
    assert not (tmp_path / LAST_CHECKPOINT).exists()


def test_shards_partition_the_items() -> None:
    for size in (1, 2, 3, 7):
        for count in (0, 1, 5, 18, 100):
            shares = [range(count)[DistributedContext(rank, size).shard(count)] for rank in range(size)]
            assert [place for share in shares for place in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert from_environment() is SINGLE_PROCESS
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert from_environment() is SINGLE_PROCESS
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(
        ConfigError, match="not LOCAL_RANK, MASTER_ADDR, MASTER_PORT; start the processes with torchrun"
    ):
        from_environment()
    for name, value in (("LOCAL_RANK", "0"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    assert from_environment() == DistributedContext(2, 4, 0)
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(ConfigError, match="RANK is 'two', not a number"):
        from_environment()


def test_other_commands_refuse_several_processes(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "::1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1")
    config = read_config(None, {"data.photos": data.photos, "data.index": data.index})
    with pytest.raises(ConfigError, match="torchrun started 2 processes"):
        fit(config, tmp_path, silent_display())


def test_a_missing_gpu_is_an_error(data: Data, cli_error: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    message = cli_error("fit", *data.flags, "--out", data.index.parent / "gpu", "--set", "train.device=cuda")
    assert message.startswith("error: train.device=cuda: torch sees no GPU here")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device, context, problem in (
        ("cuda:2", SINGLE_PROCESS, "this machine has 2 GPUs, and GPU 2 is not among them"),
        ("cuda", DistributedContext(3, 4, 3), "this machine has 2 GPUs, and GPU 3 is not among them"),
        ("cuda:1", DistributedContext(0, 2, 0), "with several processes, use cuda; each then takes its own GPU"),
    ):
        with pytest.raises(ConfigError, match=problem):
            devices.set_up(TrainConfig(device=device), context)
    chosen: list[int] = []
    precisions: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", precisions.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    devices.set_up(TrainConfig(device="cuda"), DistributedContext(5, 8, 1))
    assert torch.backends.cudnn.benchmark
    devices.set_up(TrainConfig(device="cuda:1"))
    assert (chosen, precisions) == ([1, 1], ["high", "high"])


class Mixed(DistributedContext):
    """A context whose other process runs on a machine without a GPU."""

    def all_gather(self, found: object) -> list[object]:
        return [found, False]


def test_auto_device_is_a_gpu_only_if_each_process_has_one(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = read_config(None, {"data.photos": data.photos, "data.index": data.index, "train.device": "auto"})
    assert devices.resolve(config.train, silent_display()) == config.train.model_copy(update={"device": "cuda"})
    assert devices.resolve(config.train, silent_display(), Mixed(0, 2)).device == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    run_cli("fit", *data.flags, "--out", tmp_path, *QUICK, "--epochs", 1, "--set", "train.device=auto")
    assert "train.device=auto: cpu\n" in capsys.readouterr().err
    assert checkpoint.load(tmp_path / LAST_CHECKPOINT).config.train.device == "cpu"


def test_a_model_from_a_gpu_is_evaluated_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices.for_inference(TrainConfig(device="cuda:1", precision="bf16")).device == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert devices.for_inference(TrainConfig(device="cuda")).device == "cuda"


def test_too_few_photos_for_the_processes(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = load_dataset(DataConfig(photos=data.photos, index=data.index))
    config = torchrun_script.config_of(str(data.photos), str(data.index), torchrun_script.NOISY)
    monkeypatch.setattr(fitting, "build", fitting.build)
    torchrun_script.use_tiny(norm=True)
    with pytest.raises(DataError, match="132 training photos are too few for 100 processes"):
        fitting.create_run(config, photos, tmp_path, tmp_path, silent_display(), DistributedContext(0, 100))
