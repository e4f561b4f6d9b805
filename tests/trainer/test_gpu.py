"""Training on a GPU. Skipped if there is none."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from tests.trainer.drawn import QUICK, Data, run_cli
from trainer.config import Config, parse_assignment, read_config
from trainer.data.loading import read_data
from trainer.display import silent_display
from trainer.profile.measure import endless
from trainer.train import checkpoint
from trainer.train.fit import create_run
from trainer.train.run_files import BEST_CHECKPOINT, LAST_CHECKPOINT

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ON_GPU = ["--set", "train.device=cuda", "--set", "train.precision=bf16", "--set", "train.channels_last=true"]


def config_of(data: Data, *more: str) -> Config:
    options = dict(parse_assignment(text) for text in (*QUICK, *ON_GPU, *more) if text != "--set")
    return read_config(None, options | {"data.photos": data.photos, "data.index": data.index})


@pytest.mark.parametrize(
    "options",
    [
        ["train.class_weights=sqrt", "train.schedule=one_cycle"],
        ["train.loss=cross_entropy", "train.accumulate=2", "train.optimiser=sgd"],
        ["model.freeze=layer2", "train.loss=cross_entropy"],
    ],
    ids=["ordinal", "plain", "features"],
)
def test_no_step_waits_for_the_gpu(data: Data, tmp_path: Path, options: list[str]) -> None:
    """Synchronising would leave the GPU idle until the next step is queued. PyTorch names the offending line."""
    config = config_of(data, *options)
    run = create_run(
        config, read_data(config.data, silent_display()), tmp_path, tmp_path / "features", silent_display()
    )
    batches = endless(run.train)
    steps = 2 * run.train.accumulation_steps
    run.train_steps(islice(batches, steps), 0)
    try:
        torch.cuda.set_sync_debug_mode("error")
        loss = run.train_steps(islice(batches, 2 * steps), 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)


def test_a_run_on_a_gpu(data: Data, tmp_path: Path) -> None:
    """Fit, resume and evaluate on the GPU and on the CPU."""
    run_cli("fit", *data.flags, "--out", tmp_path, *QUICK, *ON_GPU, "--epochs", 1)
    run_cli("fit", "--out", tmp_path, "--resume", "--epochs", 2)
    saved = checkpoint.load(tmp_path / LAST_CHECKPOINT)
    assert [row["epoch"] for row in saved.history] == [1, 2]
    assert torch.cuda.get_device_name() in saved.facts["hardware"]
    assert all(value.device.type == "cpu" for value in saved.weights.values())
    run_cli("evaluate", tmp_path / BEST_CHECKPOINT, *data.flags)
    assert (tmp_path / "evaluation" / "test.json").exists()
